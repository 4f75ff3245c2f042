// What a reload must bring back lives in the address: batch, open picture, filters and threshold.
import { isShow, isSort } from "./order.js";
import { on, state } from "./state.js";

let lastPlace = null;

export function readHash() {
  const given = new URLSearchParams(location.hash.slice(1));
  const fraction = (name) => {
    const value = Number.parseFloat(given.get(name));
    return value >= 0 && value <= 1 ? value : null;
  };
  state.threshold = fraction("t") ?? fraction("m"); // older addresses had one of the map
  state.show = isShow(given.get("show")) ? given.get("show") : "all";
  state.sort = isSort(given.get("sort")) ? given.get("sort") : "-score";
  return { batch: given.get("b"), item: given.get("i") };
}

function writeHash() {
  const kept = new URLSearchParams();
  if (state.batch) kept.set("b", state.batch.id);
  if (state.current) kept.set("i", state.current);
  if (state.threshold !== null) kept.set("t", state.threshold);
  if (state.show !== "all") kept.set("show", state.show);
  if (state.sort !== "-score") kept.set("sort", state.sort);
  const text = kept.toString();
  // The browser's back leads from a picture to its gallery and from a gallery to the start, not through each slider.
  const place = `${state.batch?.id} ${Boolean(state.current)}`;
  const way = lastPlace === place ? "replaceState" : "pushState";
  lastPlace = place;
  if (text !== location.hash.slice(1)) history[way](null, "", text ? `#${text}` : location.pathname);
}

export const arrivedAt = (batch, item) => (lastPlace = `${batch ?? undefined} ${Boolean(item)}`);

// Sliders tell sixty times a second and browsers limit how often the address may change; a single change shows at once.
const LEAST_MS = 150;
let waiting = null;
let written = -LEAST_MS;
export function keepHash() {
  arrivedAt(state.batch?.id, state.current);
  on("batch item items threshold", () => {
    waiting ??= setTimeout(
      () => {
        waiting = null;
        written = performance.now();
        writeHash();
      },
      Math.max(0, written + LEAST_MS - performance.now()),
    );
  });
}
