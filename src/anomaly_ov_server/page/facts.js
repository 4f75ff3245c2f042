// What is known of the open picture: score and label, with and without the context, its regions, and what produced it.
import { byId, el, longScore, shortScore } from "./dom.js";
import { currentItem, isAnomalous, isScored, levelOf, on, state, thresholdOf } from "./state.js";
import { found, pickRegion } from "./viewer.js";

const MOST_CHIPS = 9;
const CONTEXTS = {
  none: "with nothing",
  folder: "with the other pictures",
  references: "with good references",
};

function heading(item) {
  const at = state.order.indexOf(item.id);
  return el(
    "header",
    {},
    el("h2", { class: "clip", text: item.name, title: item.name }),
    el("span", { class: "soft", text: at < 0 ? "" : `${at + 1} of ${state.order.length}` }),
  );
}

function scoreLine(item) {
  const anomalous = isAnomalous(item);
  const meter = el("div", { class: "meter", "aria-hidden": "true" });
  const fill = el("span", { class: "bar-fill" });
  const mark = el("span", { class: "bar-mark" });
  fill.style.width = `${item.score * 100}%`;
  mark.style.left = `${thresholdOf(item) * 100}%`;
  meter.append(fill, mark);
  const label = anomalous ? "Anomalous" : "Normal";
  return el(
    "div",
    { class: anomalous ? "verdict-line anomalous" : "verdict-line" },
    el(
      "div",
      { class: "row" },
      el("strong", { class: "big", text: longScore(item.score) }),
      el("span", { class: "label", text: label }),
      el("span", { class: "spacer" }),
      el("span", {
        class: "soft level",
        text: `${levelOf(item)} suspicious`,
        title: "The score beside the threshold",
      }),
    ),
    meter,
    compared(item),
  );
}

function compared(item) {
  if (item.score_context === null || item.score_expert === null) return null;
  const distance = state.finding?.context?.distance;
  const parts = [`with context ${shortScore(item.score)}`, `without ${shortScore(item.score_expert)}`];
  if (typeof distance === "number") parts.push(`${distance.toFixed(1)}× the usual distance`);
  return el("p", { class: "note compared", text: parts.join(" · ") });
}

function regionChips() {
  if (!found.length) return null;
  const chips = found.slice(0, MOST_CHIPS).map((region, index) => {
    const chosen = state.region?.number === index + 1;
    return el("button", {
      type: "button",
      class: "chip",
      "aria-pressed": String(chosen),
      title: "Ask about this region",
      text: `${index + 1} · ${region.peak.toFixed(2)}`,
      onclick: () => pickRegion(index),
    });
  });
  return el(
    "div",
    { class: "chips", role: "group", "aria-label": "Regions by peak" },
    el("span", { class: "soft", text: found.length === 1 ? "Region" : "Regions" }),
    ...chips,
  );
}

function origin(item) {
  const { finding } = state;
  const model = finding?.model ?? state.batch.model;
  const threshold = state.threshold === null ? item.threshold : { value: state.threshold, source: "set here" };
  const rows = [
    ["Model", `${model.name}, revision ${model.revision.slice(0, 12)}`],
    [
      "Ran on",
      `${model.device}, ${model.dtype}${finding?.timing_ms?.total ? `, ${Math.round(finding.timing_ms.total)} ms` : ""}`,
    ],
    ["Threshold", `${threshold.value.toFixed(2)} (${threshold.source})`],
    [
      "Compared",
      CONTEXTS[finding?.context?.kind ?? "none"] + (finding?.context?.note ? `: ${finding.context.note}` : ""),
    ],
    ["Picture", `${item.width} × ${item.height}, sha256 ${item.sha256.slice(0, 12)}`],
  ];
  return el(
    "details",
    { class: "origin", id: "origin" },
    el("summary", {
      text: `${model.name} ${model.revision.slice(0, 7)} · threshold ${threshold.value.toFixed(2)} · compared ${CONTEXTS[finding?.context?.kind ?? "none"]}`,
    }),
    el("dl", {}, ...rows.map(([name, value]) => el("div", {}, el("dt", { text: name }), el("dd", { text: value })))),
  );
}

function failure(item) {
  const text = item.state === "pending" ? "Waiting to be scored." : (item.error?.message ?? "It could not be scored.");
  return el(
    "div",
    { class: "failure" },
    el("p", { text }),
    item.error?.hint ? el("p", { class: "note", text: item.error.hint }) : null,
  );
}

function draw() {
  const item = currentItem();
  if (!item) return;
  const open = byId("origin")?.open ?? false;
  const parts = isScored(item) ? [scoreLine(item), regionChips(), origin(item)] : [failure(item)];
  byId("facts").replaceChildren(heading(item), ...parts.filter(Boolean));
  if (byId("origin")) byId("origin").open = open;
}

export const setUpFacts = () => on("item finding items threshold regions region", draw);
