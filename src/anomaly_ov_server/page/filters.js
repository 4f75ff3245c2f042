// Above the gallery: search, what to show, order, and the score threshold, which relabels all pictures at once.
import { byId, el } from "./dom.js";
import { drawHistogram, histogram } from "./histogram.js";
import { rearrange } from "./order.js";
import { isAnomalous, isScored, on, scoreThreshold, state, tell } from "./state.js";

const SHOW = [
  ["all", "All"],
  ["anomalous", "Anomalous"],
  ["normal", "Normal"],
  ["undecided", "Undecided"],
  ["decided", "Decided"],
  ["failed", "Failed"],
];
const SORT = [
  ["-score", "Highest score"],
  ["score", "Lowest score"],
  ["position", "As sent"],
  ["name", "Name"],
  ["decision", "Decision"],
];

export function setUpFilters() {
  const search = el("input", {
    type: "search",
    id: "search",
    placeholder: "Search names",
    "aria-label": "Search names",
    oninput: ({ target }) => {
      state.query = target.value;
      rearrange();
    },
  });
  const tabs = SHOW.map(([value, text]) => {
    const count = el("span", { class: "count" });
    const button = el(
      "button",
      { type: "button", "data-show": value, onclick: () => choose(value) },
      el("span", { text }),
      count,
    );
    return { value, button, count };
  });
  const sort = el(
    "select",
    {
      "aria-label": "Order",
      onchange: ({ target }) => {
        state.sort = target.value;
        rearrange();
      },
    },
    ...SORT.map(([value, text]) => el("option", { value, text })),
  );
  const canvas = histogram();
  const slider = el("input", {
    type: "range",
    id: "score-threshold",
    min: 0,
    max: 1,
    step: 0.01,
    "aria-label": "Score threshold",
    oninput: ({ target }) => setThreshold(Number(target.value)),
  });
  const value = el("output", { for: "score-threshold" });
  const reset = el("button", {
    type: "button",
    class: "quiet",
    text: "reset",
    title: "The model's own threshold",
    onclick: () => setThreshold(null),
  });
  const decided = el("div", { class: "decided", id: "decided" });
  byId("filters").append(
    el("div", { class: "row" }, search, sort),
    el("div", { class: "tabs", role: "group", "aria-label": "Show" }, ...tabs.map((tab) => tab.button)),
    el(
      "div",
      { class: "threshold" },
      el("label", { for: "score-threshold" }, el("span", { text: "Anomalous from" }), value, reset),
      el("div", { class: "track" }, canvas, slider),
    ),
    decided,
  );

  const draw = () => {
    const counts = countAll();
    for (const tab of tabs) {
      tab.count.textContent = counts[tab.value];
      tab.button.setAttribute("aria-pressed", String(state.show === tab.value));
      tab.button.hidden = tab.value === "failed" && !counts.failed && state.show !== "failed";
    }
    sort.value = state.sort;
    slider.value = scoreThreshold();
    value.textContent = scoreThreshold().toFixed(2);
    reset.hidden = state.threshold === null;
    decided.textContent = counts.all ? `${counts.decided} of ${counts.all} decided` : "";
    decided.style.setProperty("--done", counts.all ? counts.decided / counts.all : 0);
    drawHistogram(canvas);
  };
  let waiting = null;
  on("items threshold batch", () => {
    waiting ??= requestAnimationFrame(() => {
      waiting = null;
      draw();
    });
  });
}

function choose(show) {
  state.show = show;
  rearrange();
}

function setThreshold(value) {
  state.threshold = value;
  tell("threshold");
  // What is shown changes only where the filter looks at the label.
  if (["anomalous", "normal"].includes(state.show)) rearrange();
}

export function countAll() {
  const counts = { all: 0, anomalous: 0, normal: 0, undecided: 0, decided: 0, failed: 0 };
  for (const item of state.items.values()) {
    counts.all += 1;
    if (item.decision) counts.decided += 1;
    if (item.state === "failed") counts.failed += 1;
    if (!isScored(item)) continue;
    counts[isAnomalous(item) ? "anomalous" : "normal"] += 1;
    if (!item.decision) counts.undecided += 1;
  }
  return counts;
}
