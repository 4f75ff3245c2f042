// The page's end of the map worker: colours of the absolute scale, painted layers, regions at a threshold.
import { state } from "./state.js";

// As in the overlays that are written to files: the higher, the lighter and the less transparent.
const STRONGEST = 0.9;
const OPACITY_POWER = 0.75;

const worker = new Worker("/static/map-worker.js", { type: "module" });
const painted = new Map(); // token -> [resolve, reject]
let onRegions = () => {};
let tokens = 0;

worker.onmessage = ({ data }) => {
  if (data.kind === "regions") {
    answered(data);
    return;
  }
  if (!painted.has(data.token)) {
    answered({ ...data, regions: null }); // looking for regions failed
    return;
  }
  const [resolve, reject] = painted.get(data.token);
  painted.delete(data.token);
  if (data.kind === "painted") resolve(data);
  else reject(new Error(data.message));
};

const packed = (red, green, blue, alpha) => ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;

export function mapColours() {
  return Uint32Array.from({ length: 256 }, (_, value) => {
    const [red, green, blue] = [1, 3, 5].map((at) => Number.parseInt(state.about.palette[value].slice(at, at + 2), 16));
    return packed(red, green, blue, Math.round(255 * STRONGEST * (value / 255) ** OPACITY_POWER));
  });
}

// {bitmap, grey, width, height, token} of a grey PNG.
export function paint(layer, blob, colours) {
  tokens += 1;
  const token = tokens;
  return new Promise((resolve, reject) => {
    painted.set(token, [resolve, reject]);
    worker.postMessage({ kind: "paint", layer, token, blob, colours });
  });
}

// Only the newest wish counts: while one is being worked on, later ones replace each other.
let working = false;
let wanted = null;

export function wantRegions(request) {
  if (working) {
    wanted = request;
    return;
  }
  working = true;
  worker.postMessage({ kind: "regions", layer: "map", ...request });
}

function answered(data) {
  working = false;
  onRegions(data);
  if (wanted) {
    const next = wanted;
    wanted = null;
    wantRegions(next);
  }
}

export const whenRegions = (listener) => (onRegions = listener);
