// Sending pictures, a few at a time, until the service has them all. What was sent is safe there; what was not is
// remembered by number only, so that after a reload the page can say what is missing.
import { call, patiently } from "./api.js";
import { newBatch, poll } from "./batches.js";
import { byId, el, plural } from "./dom.js";
import { failed, say } from "./notices.js";
import { takeItems } from "./order.js";
import { on, started, state, tell } from "./state.js";

const CHUNK_PICTURES = 8;
const CHUNK_BYTES = 32 * 2 ** 20;
const KEY = "anomaly-ov-upload";
const PICTURE = /\.(jpe?g|png|webp|bmp|gif|tiff?|jp2|pnm|ppm|pgm|avif)$/i;

const queue = [];
let running = false;
const seen = { batch: null, total: 0, sent: 0, rejected: [], skipped: 0, waiting: "" };

export async function upload(files, name = "") {
  const pictures = files.filter((file) => file.type.startsWith("image/") || PICTURE.test(file.name));
  if (!running) Object.assign(seen, { batch: null, total: 0, sent: 0, rejected: [], skipped: 0, waiting: "" });
  seen.skipped += files.length - pictures.length;
  if (!pictures.length) {
    show();
    return;
  }
  await started;
  const batch = state.batch ?? (await newBatch(name || today()));
  seen.batch = batch.id;
  for (const file of pictures) queue.push({ file, batch: batch.id });
  seen.total += pictures.length;
  if (!running) await send();
}

const today = () =>
  new Date().toLocaleString(undefined, { day: "numeric", month: "long", hour: "2-digit", minute: "2-digit" });

async function send() {
  running = true;
  try {
    while (queue.length) {
      keep();
      show();
      const chunk = nextChunk();
      if (chunk.length) await sendChunk(chunk);
    }
  } catch (error) {
    queue.length = 0;
    failed(error);
  } finally {
    running = false;
    sessionStorage.removeItem(KEY);
    show();
    say(`${plural(seen.sent, "picture")} sent.`);
    poll(true);
  }
}

// A chunk goes to one batch and stays small, so that progress moves and a retry costs little.
function nextChunk() {
  const chunk = [];
  const largest = state.about?.limits?.max_picture_bytes ?? Infinity;
  let bytes = 0;
  while (queue.length && chunk.length < CHUNK_PICTURES) {
    const { file, batch } = queue[0];
    if (file.size > largest) {
      reject(file.name, `larger than ${Math.round(largest / 2 ** 20)} MB`);
      queue.shift();
      continue;
    }
    if (chunk.length && (bytes + file.size > CHUNK_BYTES || batch !== chunk[0].batch)) break;
    bytes += file.size;
    chunk.push(queue.shift());
  }
  return chunk;
}

function reject(name, reason) {
  seen.rejected.push({ name, reason });
  seen.sent += 1;
}

async function sendChunk(chunk) {
  const { batch } = chunk[0];
  const body = new FormData();
  for (const { file } of chunk) body.append("file", file, file.name);
  const path = `/v1/batches/${encodeURIComponent(batch)}/pictures`;
  try {
    const answer = await patiently(() => call("POST", path, { body }), wait);
    take(answer, batch, chunk.length);
  } catch (error) {
    // A refusal that is about the pictures themselves concerns this chunk, not those that follow.
    if (![400, 413, 415, 422].includes(error.status)) throw error;
    for (const { file } of chunk) reject(file.name, error.message);
  }
  seen.waiting = "";
}

function wait(seconds, error) {
  seen.waiting = error.gone
    ? "The service does not answer; sending goes on when it does."
    : `The service is busy; next try in ${Math.ceil(seconds)} s.`;
  show();
}

function take(answer, batch, count) {
  for (const { name, error } of answer.rejected) seen.rejected.push({ name, reason: error.message });
  seen.sent += count;
  if (state.batch?.id !== batch) return;
  state.batch = answer.batch;
  takeItems(answer.items);
  tell("batch");
  poll(answer.batch.state !== "running");
}

const keep = () =>
  sessionStorage.setItem(KEY, JSON.stringify({ batch: seen.batch, total: seen.total, sent: seen.sent }));

function show() {
  const tray = byId("upload-tray");
  const { total, sent, rejected, skipped, waiting } = seen;
  tray.hidden = !running && !rejected.length && !skipped && !waiting;
  const close = el("button", {
    type: "button",
    class: "icon",
    text: "✕",
    "aria-label": "Close",
    onclick: () => (tray.hidden = true),
  });
  const title = running
    ? `Sending ${Math.min(sent + 1, total)} of ${total}`
    : `${plural(sent - rejected.length, "picture")} sent`;
  const lines = [
    el("div", { class: "row" }, el("strong", { text: title }), el("span", { class: "spacer" }), running ? null : close),
  ];
  if (running) lines.push(el("progress", { max: total, value: sent, "aria-label": "Pictures sent" }));
  if (waiting) lines.push(el("p", { class: "note", text: waiting }));
  if (skipped) lines.push(el("p", { class: "note", text: `${plural(skipped, "other file")} left out: not pictures.` }));
  if (rejected.length) lines.push(rejectedList(rejected));
  tray.replaceChildren(...lines);
  state.sending = running;
  tell("upload");
}

function rejectedList(rejected) {
  const rows = rejected.map(({ name, reason }) =>
    el("li", {}, el("span", { class: "clip", text: name }), el("span", { class: "note", text: reason })),
  );
  return el(
    "details",
    { open: rejected.length < 6 },
    el("summary", { text: `${plural(rejected.length, "file")} refused` }),
    el("ul", {}, ...rows),
  );
}

export function setUpUpload() {
  addEventListener("beforeunload", (event) => running && event.preventDefault());
  on("online", () => running && show());
  const left = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
  sessionStorage.removeItem(KEY);
  if (!left || left.sent >= left.total) return;
  const tray = byId("upload-tray");
  const close = el("button", {
    type: "button",
    class: "icon",
    text: "✕",
    "aria-label": "Close",
    onclick: () => (tray.hidden = true),
  });
  const text = `${left.sent} of ${left.total} pictures had been sent when the page closed. Choose the same ones again: those that are there are not sent twice.`;
  tray.replaceChildren(
    el(
      "div",
      { class: "row" },
      el("strong", { text: "Sending was interrupted" }),
      el("span", { class: "spacer" }),
      close,
    ),
    el("p", { class: "note", text }),
  );
  tray.hidden = false;
}
