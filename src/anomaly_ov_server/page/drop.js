// The ways in: dropped files and folders, the clipboard, the file choosers.
import { byId } from "./dom.js";
import { failed } from "./notices.js";
import { upload } from "./upload.js";

const take = (files, name) => upload(files, name).catch(failed);

// A folder gives its entries a hundred at a time, until it gives none.
async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(filesOf))).flat();
}

async function dropped(transfer) {
  // Entries must be taken before the first wait: the list empties when the event is over.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const plain = [...transfer.files];
  if (!entries.length) return take(plain, "");
  const folder = entries.length === 1 && entries[0].isDirectory ? entries[0].name : "";
  return take((await Promise.all(entries.map(filesOf))).flat(), folder);
}

const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

export function setUpDrop() {
  const veil = byId("drop-veil");
  let depth = 0;
  const inside = (change) => {
    depth = Math.max(0, depth + change);
    veil.hidden = depth === 0;
  };
  addEventListener("dragenter", (event) => carriesFiles(event) && inside(1));
  addEventListener("dragleave", (event) => carriesFiles(event) && inside(-1));
  addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    veil.hidden = true;
    dropped(event.dataTransfer).catch(failed);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    take(files, "");
  });
  for (const id of ["choose-files", "choose-folder"]) {
    byId(id).addEventListener("change", ({ target }) => {
      const files = [...target.files];
      const folder = files[0]?.webkitRelativePath.split("/")[0] ?? "";
      target.value = ""; // so that choosing the same again counts as a change
      if (files.length) take(files, folder);
    });
  }
}
