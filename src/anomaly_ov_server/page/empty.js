// The start: what to do first, examples to try, and the batches that are already there.
import { batchEntry, recentBatches } from "./batches.js";
import { openCamera } from "./camera.js";
import { byId, el } from "./dom.js";
import { failed } from "./notices.js";
import { on, state } from "./state.js";
import { upload } from "./upload.js";

const EXAMPLES = [
  "blister_good",
  "blister_missing",
  "blister_burnt",
  "flange_good",
  "flange_scratched",
  "connector_good",
  "connector_bent",
  "connector_rusty",
];

const STEPS = [
  ["See", "Every picture gets a score and a map of what looks unusual."],
  ["Ask", "Click a region and ask what it is."],
  ["Decide", "N, A or U: normal, anomalous, unsure. Undo with Z."],
  ["Export", "CSV, JSONL, COCO, overlays or one HTML report."],
];

async function tryExamples() {
  const files = EXAMPLES.map(async (name) => {
    const response = await fetch(`/static/examples/${name}.jpg`);
    return new File([await response.blob()], `${name}.jpg`, { type: "image/jpeg" });
  });
  await upload(await Promise.all(files), "Examples");
}

export function addButtons() {
  const button = (text, onclick, kind = "") => el("button", { type: "button", class: kind, text, onclick });
  return {
    files: (kind) => button("Choose pictures", () => byId("choose-files").click(), kind),
    folder: (kind) => button("Choose a folder", () => byId("choose-folder").click(), kind),
    camera: (kind) => (navigator.mediaDevices?.getUserMedia ? button("Use the camera", openCamera, kind) : null),
    examples: (kind) => button("Try the examples", () => tryExamples().catch(failed), kind),
  };
}

async function draw() {
  const buttons = addButtons();
  const recent = el("div", { class: "recent", hidden: true });
  const zone = el(
    "div",
    { class: "zone" },
    el("h1", { text: "Drop pictures here" }),
    el("p", { class: "note", text: "Files or whole folders. Or paste one with Ctrl+V. They stay on this service." }),
    el("div", { class: "row middle" }, buttons.files("primary"), buttons.folder(), buttons.camera()),
    el("p", { class: "or", text: "none at hand?" }),
    buttons.examples(),
  );
  const steps = el(
    "ol",
    { class: "steps" },
    ...STEPS.map(([name, text]) => el("li", {}, el("strong", { text: name }), el("span", { text }))),
  );
  byId("empty").replaceChildren(zone, steps, recent);
  const batches = await recentBatches();
  if (!batches.length || state.batch) return;
  recent.append(el("h2", { text: "Go on with" }), ...batches.slice(0, 6).map(batchEntry));
  recent.hidden = false;
}

export function setUpEmpty() {
  on("batch", () => {
    if (!state.batch) draw().catch(failed);
  });
  byId("add-menu").addEventListener("menuopen", () => {
    const { files, folder, camera } = addButtons();
    byId("add-body").replaceChildren(...[files("entry"), folder("entry"), camera("entry")].filter(Boolean));
  });
  on("batch", () => (byId("add-menu").hidden = !state.batch));
}
