// The export menu: plain links, so that the browser saves them, with the threshold where it was
// set by hand; else the records keep their own, and say where that comes from.
import { closeMenus } from "./dialogs.js";
import { byId, el } from "./dom.js";
import { on, scoreThreshold, state } from "./state.js";

const FORMATS = [
  ["html", "Report", "one HTML file that opens offline"],
  ["csv", "Table", "CSV for a spreadsheet"],
  ["zip", "Archive with overlays", "zip"],
  ["coco", "Regions", "COCO JSON for labelling tools"],
  ["jsonl", "Records", "JSONL for scripts"],
];

function fill() {
  const base = `/v1/batches/${encodeURIComponent(state.batch.id)}/results`;
  const links = FORMATS.map(([format, title, text]) => {
    const query = new URLSearchParams({ format });
    if (state.threshold !== null) query.set("threshold", state.threshold);
    return el(
      "a",
      {
        class: "entry two",
        href: `${base}?${query}`,
        download: "",
        "data-format": format,
        onclick: () => closeMenus(),
      },
      el("span", { text: title }),
      el("span", { class: "note", text }),
    );
  });
  const { counts, state: running } = state.batch;
  const notes = [`Labels and regions from ${scoreThreshold().toFixed(2)}.`];
  if (running === "running") notes.push(`${counts.pending} pictures are not scored yet.`);
  byId("export-body").replaceChildren(...links, el("p", { class: "note", text: notes.join(" ") }));
}

export function setUpExports() {
  on("batch", () => (byId("export-menu").hidden = !state.batch || !state.batch.counts.total));
  byId("export-menu").addEventListener("menuopen", fill);
}
