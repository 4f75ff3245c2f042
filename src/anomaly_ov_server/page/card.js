// One picture in the gallery. A card is made once and filled again for other items: it holds no state of its own.
import { fileOf } from "./api.js";
import { el, shortScore } from "./dom.js";
import { isAnomalous, isScored, state, thresholdOf } from "./state.js";

const VERDICTS = { normal: ["✓", "normal"], anomalous: ["✕", "anomalous"], unsure: ["?", "unsure"] };
const REASONS = { pending: "waiting", failed: "could not be read" };

export function makeCard() {
  const parts = {
    picture: el("img", { class: "thumb", alt: "", decoding: "async", draggable: "false" }),
    tick: el("span", { class: "tick", "aria-hidden": "true" }),
    verdict: el("span", { class: "verdict" }),
    reason: el("span", { class: "reason" }),
    name: el("span", { class: "name clip" }),
    score: el("span", { class: "score" }),
    bar: el("span", { class: "bar-fill" }),
    mark: el("span", { class: "bar-mark" }),
    alone: el("span", { class: "bar-alone" }),
  };
  const node = el(
    "div",
    { class: "card", role: "option" },
    el("div", { class: "frame" }, parts.picture, parts.reason, parts.tick, parts.verdict),
    el("div", { class: "line" }, parts.name, parts.score),
    el("div", { class: "meter", "aria-hidden": "true" }, parts.bar, parts.alone, parts.mark),
  );
  parts.picture.addEventListener("error", () => node.classList.add("no-thumb"));
  return { node, parts, id: null };
}

export function fillCard(card, item, position, count) {
  const { node, parts } = card;
  const anomalous = isScored(item) && isAnomalous(item);
  const thumbnail = isScored(item) ? fileOf(item, "thumbnail") : "";
  if (card.thumbnail !== thumbnail) {
    card.thumbnail = thumbnail;
    node.classList.remove("no-thumb");
    if (thumbnail) parts.picture.src = thumbnail;
    else parts.picture.removeAttribute("src");
  }
  node.id = `card-${item.id}`;
  node.dataset.id = item.id;
  node.dataset.state = item.state;
  node.classList.toggle("anomalous", anomalous);
  node.classList.toggle("current", item.id === state.current);
  node.classList.toggle("active", item.id === state.active);
  node.classList.toggle("ticked", state.picked.has(item.id));
  node.setAttribute("aria-selected", String(state.picked.has(item.id)));
  node.setAttribute("aria-posinset", position + 1);
  node.setAttribute("aria-setsize", count);
  const [sign, verdict] = VERDICTS[item.decision?.verdict] ?? ["", ""];
  parts.verdict.textContent = sign;
  parts.verdict.dataset.verdict = verdict;
  parts.verdict.hidden = !verdict;
  parts.name.textContent = item.name;
  node.title = item.name;
  parts.score.textContent = shortScore(item.score);
  parts.reason.textContent = item.error?.message ?? REASONS[item.state] ?? "";
  parts.bar.style.width = `${(item.score ?? 0) * 100}%`;
  parts.mark.style.left = `${thresholdOf(item) * 100}%`;
  const compared = item.score_context !== null && item.score_expert !== null;
  parts.alone.hidden = !compared;
  if (compared) parts.alone.style.left = `${item.score_expert * 100}%`;
  const spoken = isScored(item)
    ? `score ${shortScore(item.score)}, ${anomalous ? "anomalous" : "normal"}`
    : REASONS[item.state];
  node.setAttribute("aria-label", `${item.name}, ${spoken}${verdict ? `, decided ${verdict}` : ""}`);
}
