// What the page knows, in one place, and who wants to hear that it changed. No drawing here, no requests.
//
// Topics: about, batch, items (contents or order), item (another one is open), finding (its record arrived), picked,
// threshold, region, upload, offline, online.

export const state = {
  about: null,
  batch: null,
  items: new Map(), // id -> item as the server sent it; replaced, never changed in place
  order: [], // ids as shown: filtered and sorted
  active: null, // id with the gallery's focus
  current: null, // id that is open in the viewer
  finding: null, // full record of the open one
  picked: new Set(), // ids ticked, for "these are good"
  threshold: null, // null: as the service decided
  show: "all",
  sort: "-score",
  query: "",
  sending: false, // pictures are on their way
  region: null, // {index, box, number} that the next question is about
};

const listeners = new Map();

export function on(topics, listener) {
  for (const topic of topics.split(" ")) {
    if (!listeners.has(topic)) listeners.set(topic, []);
    listeners.get(topic).push(listener);
  }
}

export function tell(topic, detail) {
  for (const listener of listeners.get(topic) ?? []) listener(detail);
}

const usual = () => state.batch?.threshold ?? state.about?.threshold;
export const scoreThreshold = () => state.threshold ?? usual()?.value ?? 0.5;

// One set by hand was chosen for other scores: another batch's, or those beside another context.
export const forgetThreshold = () => Object.assign(state, { threshold: null });

// An earlier score stays in sight while the picture is scored anew.
export const isScored = (item) => item.score !== null && item.state !== "failed";

// The service's own verdict until the slider is moved: an item may have been compared with another threshold.
export function isAnomalous(item) {
  if (item.score === null) return false;
  return state.threshold === null ? item.anomalous : item.score >= state.threshold;
}

// What its score and its map are compared with.
export const thresholdOf = (item) => state.threshold ?? item.threshold?.value ?? scoreThreshold();

// As the service has it (records.level_beside).
export function levelOf(item) {
  const threshold = thresholdOf(item);
  if (item.score < threshold) return "slightly";
  return item.score < (1 + threshold) / 2 ? "moderately" : "highly";
}

export const currentItem = () => state.items.get(state.current) ?? null;

// Resolved once the page shows what its address says. What is dropped before that waits, or it would go out of sight.
export const { promise: started, resolve: markStarted } = deferred();

function deferred() {
  const parts = {};
  parts.promise = new Promise((resolve) => (parts.resolve = resolve));
  return parts;
}
