// The open batch: its items in pages, what changed since, the list of batches, and the rounds of asking.
import { call, get } from "./api.js";
import { byId, el, plural } from "./dom.js";
import { closeMenus, confirmed } from "./dialogs.js";
import { failed, say } from "./notices.js";
import { rearrange, takeItems } from "./order.js";
import { forgetThreshold, on, state, tell } from "./state.js";

const PAGE = 250;
const WHILE_RUNNING_MS = 1000;
const AT_REST_MS = 20000;

let revision = 0;
let timer = null;

const pathOf = (id) => `/v1/batches/${encodeURIComponent(id)}`;

export async function openBatch(id) {
  clearTimeout(timer);
  byId("batch-body").hidden = true;
  const batch = await get(pathOf(id));
  Object.assign(state, { items: new Map(), order: [], active: null, current: null, finding: null, batch });
  state.picked.clear();
  tell("item");
  tell("batch");
  document.body.dataset.view = "batch";
  await loadItems(batch.id);
  poll();
}

// The first page is what is seen first; the rest follows in the background without anyone waiting.
async function loadItems(id) {
  const first = await get(`${pathOf(id)}/items?sort=-score&limit=${PAGE}`);
  if (state.batch?.id !== id) return;
  revision = first.revision;
  takeItems(first.items);
  rest(id, first.total).catch(failed);
}

async function rest(id, total) {
  for (let offset = PAGE; offset < total; offset += PAGE) {
    const page = await get(`${pathOf(id)}/items?sort=-score&offset=${offset}&limit=${PAGE}`);
    if (state.batch?.id !== id) return;
    takeItems(page.items);
  }
}

export async function newBatch(name) {
  const batch = await call("POST", "/v1/batches", { json: { name } });
  await openBatch(batch.id);
  return batch;
}

export async function refresh() {
  const id = state.batch?.id;
  if (!id) return;
  const batch = await get(pathOf(id));
  if (state.batch?.id !== id) return;
  const before = state.batch;
  state.batch = batch;
  await changes(id);
  if (state.batch?.id !== id) return;
  tell("batch");
  if (before.state === "running" && batch.state === "done") {
    say(`All ${batch.counts.total} pictures are scored, ${batch.counts.anomalous} look anomalous.`);
  }
}

async function changes(id) {
  let seen = revision;
  for (let offset = 0; ; offset += PAGE) {
    const page = await get(`${pathOf(id)}/items?sort=position&since=${revision}&offset=${offset}&limit=${PAGE}`);
    if (state.batch?.id !== id) return;
    // What changes while later pages are read is asked for again next time.
    if (offset === 0) seen = page.revision;
    if (page.items.length) takeItems(page.items);
    if (offset + PAGE >= page.total) break;
  }
  revision = seen;
}

export function poll(soon = false) {
  clearTimeout(timer);
  const busy = state.batch?.state === "running" || state.batch?.context?.state === "building";
  timer = setTimeout(round, soon ? 0 : busy ? WHILE_RUNNING_MS : AT_REST_MS);
}

async function round() {
  if (!document.hidden) {
    try {
      await refresh();
    } catch (error) {
      failed(error);
    }
  }
  poll();
}

export function home() {
  clearTimeout(timer);
  forgetThreshold();
  Object.assign(state, { batch: null, items: new Map(), order: [], current: null, active: null, finding: null });
  state.picked.clear();
  document.body.dataset.view = "empty";
  rearrange();
  tell("item");
  tell("batch");
}

export const recentBatches = async () => (await get("/v1/batches?limit=12")).batches;

// Its id if there is exactly one with pictures in it.
export async function onlyBatch() {
  const [batch, ...others] = await recentBatches();
  return batch?.counts.total && !others.length ? batch.id : null;
}

export function batchLine(batch) {
  const { total, anomalous, decided } = batch.counts;
  return total ? `${plural(total, "picture")} · ${anomalous} anomalous · ${decided} decided` : "no pictures yet";
}

export function setUpBatches() {
  byId("home").addEventListener("click", home);
  on("online", () => poll(true));
  document.addEventListener("visibilitychange", () => document.hidden || poll(true));
  on("batch", () => {
    byId("batch-menu").hidden = !state.batch;
    byId("batch-name").textContent = state.batch?.name || "untitled";
    document.title = state.batch ? `${state.batch.name || "untitled"} · Anomaly-OV` : "Anomaly-OV";
  });
  byId("batch-menu").addEventListener("menuopen", () => fillMenu().catch(failed));
}

async function fillMenu() {
  const body = byId("batch-body");
  const name = el("input", { value: state.batch.name, maxlength: 200, "aria-label": "Name of the batch" });
  const rename = async (event) => {
    event.preventDefault();
    state.batch = await call("PATCH", pathOf(state.batch.id), { json: { name: name.value } });
    closeMenus();
    tell("batch");
  };
  const item = (text, onclick, kind = "") => el("button", { type: "button", class: `entry ${kind}`, text, onclick });
  body.replaceChildren(
    el(
      "form",
      { class: "row", onsubmit: (event) => rename(event).catch(failed) },
      name,
      el("button", { text: "Rename" }),
    ),
    item("New batch", () => {
      closeMenus();
      home();
    }),
    item("Delete this batch …", () => remove().catch(failed), "danger"),
    el("p", { class: "menu-title", text: "Other batches" }),
  );
  const others = (await recentBatches()).filter((batch) => batch.id !== state.batch.id);
  if (!others.length) body.append(el("p", { class: "note", text: "none yet" }));
  for (const batch of others) body.append(batchEntry(batch));
}

export function batchEntry(batch) {
  const open = () => {
    closeMenus();
    forgetThreshold();
    openBatch(batch.id).catch(failed);
  };
  return el(
    "button",
    { type: "button", class: "entry two", onclick: open },
    el("span", { class: "clip", text: batch.name || "untitled" }),
    el("span", { class: "note", text: batchLine(batch) }),
  );
}

async function remove() {
  closeMenus();
  const { id, name } = state.batch;
  const text = "Its pictures, findings and decisions are deleted for good.";
  if (!(await confirmed(`Delete “${name || "untitled"}”?`, text, "Delete"))) return;
  await call("DELETE", pathOf(id));
  home();
}
