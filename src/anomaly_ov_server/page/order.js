// Which items are shown, and in what order. Pure: easy to test, fast for ten thousand.
import { isAnomalous, isScored, state, tell } from "./state.js";

const SHOW = {
  all: () => true,
  anomalous: (item) => isScored(item) && isAnomalous(item),
  normal: (item) => isScored(item) && !isAnomalous(item),
  undecided: (item) => isScored(item) && !item.decision,
  decided: (item) => Boolean(item.decision),
  failed: (item) => item.state === "failed",
};

const VERDICTS = { anomalous: 0, unsure: 1, normal: 2 };
const names = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
// Those without a score come last, whichever way scores are sorted.
const scored = (item, missing) => item.score ?? missing;

const SORT = {
  "-score": (a, b) => scored(b, -1) - scored(a, -1),
  score: (a, b) => scored(a, 2) - scored(b, 2),
  position: () => 0,
  name: (a, b) => names.compare(a.name, b.name),
  decision: (a, b) => (VERDICTS[a.decision?.verdict] ?? 3) - (VERDICTS[b.decision?.verdict] ?? 3),
};

export function arranged(items, { show, sort, query }) {
  const wanted = query.trim().toLocaleLowerCase();
  const shown = items.filter((item) => SHOW[show](item) && (!wanted || item.name.toLocaleLowerCase().includes(wanted)));
  return shown.sort((a, b) => SORT[sort](a, b) || a.position - b.position);
}

// Filter and sort anew, then tell. The open picture stays open even where a filter leaves it out.
export function rearrange() {
  state.order = arranged([...state.items.values()], state).map((item) => item.id);
  tell("items");
}

export function takeItems(items) {
  for (const item of items) state.items.set(item.id, item);
  rearrange();
}

export const isShow = (value) => Object.hasOwn(SHOW, value);
export const isSort = (value) => Object.hasOwn(SORT, value);
