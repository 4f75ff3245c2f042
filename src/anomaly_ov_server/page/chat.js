// Questions about the open picture, answered word by word. What was said stays with its picture for this session.
import { request } from "./api.js";
import { byId, el } from "./dom.js";
import { failed, say } from "./notices.js";
import { events } from "./sse.js";
import { currentItem, isScored, on, state, tell } from "./state.js";

const KEY = "anomaly-ov-talk";
const KEPT_PICTURES = 50;
const WRITTEN = "The text is written by a small model and may be wrong. Trust the picture.";
const FROM_RECORD = "Answers are taken from the finding: what was measured, in words. They name no kind and no cause.";
const talks = new Map(JSON.parse(sessionStorage.getItem(KEY) ?? "[]")); // item id -> [{role, text, region, yes, note}]
let stop = null; // of the answer that is coming
let parts = null;

const talkOf = (id) => talks.get(id) ?? [];

function keep(id, talk) {
  talks.delete(id);
  talks.set(id, talk);
  while (talks.size > KEPT_PICTURES) talks.delete(talks.keys().next().value);
  sessionStorage.setItem(KEY, JSON.stringify([...talks]));
}

function turn({ role, text, region, yes, note }) {
  const node = el("div", { class: `turn ${role}` });
  if (region) node.append(el("span", { class: "about", text: `region ${region}` }));
  node.append(el("p", { text: text || "…" }));
  if (typeof yes === "number") node.append(el("span", { class: "note", text: `P(yes) ${yes.toFixed(2)}` }));
  if (note) node.append(el("span", { class: "note bad", text: note }));
  return node;
}

function draw() {
  const item = currentItem();
  byId("chat").hidden = !item || !isScored(item);
  if (byId("chat").hidden) return;
  parts.log.replaceChildren(...talkOf(item.id).map(turn));
  parts.log.scrollTop = parts.log.scrollHeight;
  drawRegion();
}

function drawRegion() {
  const { region } = state;
  parts.about.hidden = !region;
  parts.aboutText.textContent = region ? `about region ${region.number}` : "";
  parts.field.placeholder = region ? `Ask about region ${region.number}` : "Ask about this picture";
}

// A region that the slider made, which the service does not know by number, is named by its place.
const PLACES = [
  ["In the upper left", "At the top", "In the upper right"],
  ["On the left", "In the centre", "On the right"],
  ["In the lower left", "At the bottom", "In the lower right"],
];

function worded(text) {
  const { region } = state;
  if (!region || region.index !== null) return text;
  const { width, height } = currentItem();
  const [x0, y0, x1, y1] = region.box;
  const third = (value) => Math.min(2, Math.floor(value * 3));
  return `${PLACES[third((y0 + y1) / 2 / height)][third((x0 + x1) / 2 / width)]}: ${text}`;
}

export async function ask(text) {
  const item = currentItem();
  if (!text.trim() || !item || !state.about) return;
  stop?.abort();
  stop = new AbortController();
  const { signal } = stop;
  const { region } = state;
  const talk = talkOf(item.id).filter(({ note }) => !note);
  const messages = [
    ...talk.map(({ role, sent, text: said }) => ({ role, content: sent ?? said })),
    { role: "user", content: worded(text) },
  ];
  const answer = { role: "assistant", text: "" };
  talk.push({ role: "user", text, sent: worded(text), region: region?.number }, answer);
  keep(item.id, talk);
  draw();
  parts.stop.hidden = false;
  const anomaly = { item: item.id };
  if (region && region.index !== null) anomaly.region = region.index;
  const body = { model: state.about.model.name, messages, stream: true, anomaly };
  try {
    await listen(await request("POST", "/v1/chat/completions", { json: body, signal }), answer, item.id);
  } catch (error) {
    answer.note = error.name === "AbortError" ? "stopped" : [error.message, error.hint].filter(Boolean).join(" ");
    if (error.name !== "AbortError") failed(error);
  } finally {
    if (stop?.signal === signal) parts.stop.hidden = true;
    keep(item.id, talk);
    if (state.current === item.id) draw();
  }
}

async function listen(response, answer, id) {
  for await (const chunk of events(response)) {
    if (chunk.error) throw new Error(chunk.error.message);
    const choice = chunk.choices?.[0];
    answer.text += choice?.delta?.content ?? "";
    if (typeof chunk.anomaly?.p_yes === "number") answer.yes = chunk.anomaly.p_yes;
    if (choice?.finish_reason === "length") answer.note = "cut at the most words allowed";
    if (state.current === id) showLast(answer);
  }
  say(answer.text);
}

// Only the last turn is drawn anew while words arrive.
function showLast(answer) {
  parts.log.lastChild?.replaceWith(turn(answer));
  parts.log.scrollTop = parts.log.scrollHeight;
}

export const focusQuestion = () => parts.field.focus();

export function setUpChat() {
  const field = el("input", { id: "question", maxlength: 1000, autocomplete: "off", "aria-label": "Question" });
  const submit = (event) => {
    event.preventDefault();
    const text = field.value;
    field.value = "";
    ask(text).catch(failed);
  };
  const clear = () => {
    state.region = null;
    tell("region");
  };
  const aboutText = el("span");
  parts = {
    log: el("div", { class: "log", role: "log", "aria-label": "Questions and answers", tabindex: 0 }),
    chips: el("div", { class: "chips", role: "group", "aria-label": "Suggested questions" }),
    about: el(
      "span",
      { class: "about", hidden: true },
      aboutText,
      el("button", {
        type: "button",
        class: "icon",
        text: "✕",
        "aria-label": "Ask about the whole picture",
        onclick: clear,
      }),
    ),
    stop: el("button", { type: "button", text: "Stop", hidden: true, onclick: () => stop?.abort() }),
    caution: el("p", { class: "note" }),
    aboutText,
    field,
  };
  parts.form = el(
    "form",
    { class: "ask", onsubmit: submit },
    parts.about,
    el("div", { class: "row" }, field, parts.stop, el("button", { class: "primary", text: "Ask" })),
  );
  byId("chat").append(parts.log, parts.chips, parts.form, parts.caution);
  on("about", () => {
    const chip = (text) =>
      el("button", { type: "button", class: "chip", text, onclick: () => ask(text).catch(failed) });
    parts.chips.replaceChildren(...state.about.questions.slice(0, 5).map(chip));
    parts.caution.textContent = state.about.speaks ? WRITTEN : FROM_RECORD;
  });
  on("item about", draw);
  on("finding", draw);
  on("region", () => {
    drawRegion();
    if (state.region) field.focus({ preventScroll: false });
  });
}
