// Decisions: shown at once, sent behind, taken back if the service refuses; they wait for a service that is gone. Undo
// goes back through this session's.
import { call, patiently } from "./api.js";
import { byId, el } from "./dom.js";
import { failed, say } from "./notices.js";
import { rearrange } from "./order.js";
import { currentItem, isScored, on, state } from "./state.js";
import { openItem } from "./viewer.js";
import { setActive } from "./gallery.js";
import { countAll } from "./filters.js";

const VERDICTS = [
  ["normal", "Normal", "N"],
  ["anomalous", "Anomalous", "A"],
  ["unsure", "Unsure", "U"],
];
const KEY = "anomaly-ov-advance";
const done = []; // ids in the order of deciding
let sending = Promise.resolve(); // one after the other, so that an undo never overtakes its decision
let unsent = 0;
let advance = localStorage.getItem(KEY) !== "no";

const pathOf = (id) => `/v1/items/${encodeURIComponent(id)}/decision`;

function replace(item) {
  if (!state.items.has(item.id)) return;
  state.items.set(item.id, item);
  rearrange();
}

function send(method, id, json, before) {
  unsent += 1;
  sending = sending.then(async () => {
    try {
      const now = await patiently(() => call(method, pathOf(id), { json }));
      // A later decision on the same picture may already be shown; the service hears of it next.
      if (method === "DELETE" || state.items.get(id)?.decision?.verdict === now.decision?.verdict) replace(now);
    } catch (error) {
      replace({ ...(state.items.get(id) ?? before), decision: before.decision });
      failed(error);
    } finally {
      unsent -= 1;
    }
  });
  return sending;
}

export function decide(verdict, note = null) {
  const id = state.current ?? state.active;
  const item = state.items.get(id);
  if (!item || !isScored(item)) return;
  const next = nextAfter(id);
  const kept = note ?? item.decision?.note ?? "";
  done.push(id);
  replace({ ...item, decision: { verdict, note: kept, at: new Date().toISOString() } });
  send("PUT", id, { verdict, note: kept }, item);
  const { decided, all } = countAll();
  say(`${item.name}: ${verdict}. ${decided} of ${all} decided.`);
  if (!advance || note !== null || !next) return;
  if (state.current) openItem(next);
  else setActive(next);
}

// The next undecided one in the order that is seen, from the beginning again at the end.
function nextAfter(id) {
  const at = state.order.indexOf(id);
  const round = [...state.order.slice(at + 1), ...state.order.slice(0, Math.max(at, 0))];
  return round.find((other) => isScored(state.items.get(other)) && !state.items.get(other).decision) ?? null;
}

export function undo() {
  const id = done.pop() ?? (currentItem()?.decision ? state.current : null);
  const item = state.items.get(id);
  if (!item) return;
  replace({ ...item, decision: null });
  send("DELETE", id, undefined, item);
  say(`Undone: ${item.name}.`);
  if (state.current) openItem(id);
  else setActive(id);
}

function draw() {
  const item = currentItem();
  const ready = item && isScored(item);
  byId("review").hidden = !ready;
  if (!ready) return;
  for (const button of byId("review").querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", String(button.dataset.verdict === item.decision?.verdict));
  }
  const note = byId("note");
  note.hidden = !item.decision;
  if (document.activeElement !== note) note.value = item.decision?.note ?? "";
  const { decided, all } = countAll();
  byId("review-progress").textContent = `${decided} of ${all} decided`;
  byId("undo").disabled = !done.length && !item.decision;
}

export function setUpReview() {
  const buttons = VERDICTS.map(([verdict, text, key]) =>
    el(
      "button",
      {
        type: "button",
        "data-verdict": verdict,
        "aria-pressed": "false",
        "aria-keyshortcuts": key,
        onclick: () => decide(verdict),
      },
      el("span", { text }),
      el("kbd", { text: key }),
    ),
  );
  const keepNote = ({ target }) => {
    const item = currentItem();
    if (item?.decision && target.value !== item.decision.note) decide(item.decision.verdict, target.value);
  };
  const next = el("input", {
    type: "checkbox",
    id: "advance",
    onchange: ({ target }) => {
      advance = target.checked;
      localStorage.setItem(KEY, advance ? "yes" : "no");
    },
  });
  next.checked = advance;
  byId("review").append(
    el("div", { class: "verdicts", role: "group", "aria-label": "Your decision" }, ...buttons),
    el("input", {
      id: "note",
      placeholder: "Note (kept with the decision)",
      maxlength: 500,
      "aria-label": "Note on the decision",
      onchange: keepNote,
    }),
    el(
      "div",
      { class: "row" },
      el("span", { class: "soft", id: "review-progress" }),
      el("span", { class: "spacer" }),
      el("label", { class: "soft row" }, next, "go on to the next"),
      el(
        "button",
        { type: "button", class: "quiet", id: "undo", title: "Undo (Z)", onclick: undo },
        "Undo ",
        el("kbd", { text: "Z" }),
      ),
    ),
  );
  addEventListener("beforeunload", (event) => unsent && event.preventDefault());
  on("item items", draw);
  on("batch", () => {
    if (!state.items.size) done.length = 0;
  });
}
