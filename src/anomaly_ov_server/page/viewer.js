// The open picture: loads its record, layers and regions, and owns the tools above and the legend below it.
import { fileOf, get } from "./api.js";
import { byId, el } from "./dom.js";
import { clearLayers, makeLayers, showMap } from "./layers.js";
import { wantRegions, whenRegions } from "./map.js";
import { failed, say } from "./notices.js";
import { chooseRegion, drawRegions, makeRegionLayer, markChosen } from "./region-layer.js";
import { makeStage } from "./stage.js";
import { currentItem, isAnomalous, isScored, on, scoreThreshold, state, tell, thresholdOf } from "./state.js";

let parts = null; // {stage, layers, regions, tools, legend}
let loading = new AbortController();
let map = null; // {token, grey, peak, width, height} of what is on the stage
let loaded = ""; // which scoring of which item that is
export let found = []; // regions on the stage

const versionOf = (item) => `${item.id} ${item.state} ${item.context} ${item.score}`;

export function openItem(id) {
  if (!state.items.has(id)) return;
  state.current = id;
  state.region = null;
  document.body.dataset.open = "item";
  tell("item");
  load().catch(failed);
}

export function closeItem() {
  state.current = null;
  state.finding = null;
  document.body.dataset.open = "none";
  tell("item");
  byId("grid").focus();
}

async function load() {
  const item = currentItem();
  loading.abort();
  loading = new AbortController();
  const { signal } = loading;
  loaded = versionOf(item);
  [map, found, state.finding] = [null, [], null];
  const { layers, room, message } = parts;
  clearLayers(layers);
  drawRegions(parts.regions, [], { width: 1, height: 1 }, { width: 1, height: 1 }, () => {});
  const ready = isScored(item);
  parts.stage.stage.hidden = !ready;
  room.classList.toggle("waiting", item.state === "pending");
  message.hidden = ready;
  message.textContent = ready ? "" : (item.error?.message ?? "Waiting for its turn.");
  tell("finding");
  if (!ready) return;
  parts.stage.setSize(item.width, item.height);
  layers.picture.src = layers.grey.src = fileOf(item, "picture");
  parts.stage.stage.setAttribute("aria-label", item.name);
  const record = get(`/v1/items/${encodeURIComponent(item.id)}`, { signal }).then((full) => {
    state.finding = full.finding;
    tell("finding");
  });
  const painted = showMap(layers, item, signal).then((made) => {
    map = made;
    redrawRegions();
  });
  await Promise.all([record, painted]);
  say(`${item.name}, score ${item.score.toFixed(2)}`);
  prefetch();
}

// The next picture is on its way before the key is pressed.
function prefetch() {
  const next = state.items.get(state.order[state.order.indexOf(state.current) + 1]);
  if (!next || !isScored(next)) return;
  for (const part of ["picture", "map"]) fetch(fileOf(next, part)).catch(() => null);
}

const ABOVE_ALL = 2;

function redrawRegions() {
  const item = currentItem();
  if (!map || !item) return;
  // The highest place of the map is the score, but maps come in steps of 1/255: the label decides.
  const threshold = isAnomalous(item) ? Math.min(thresholdOf(item), Math.fround(map.peak)) : ABOVE_ALL;
  wantRegions({ token: map.token, threshold, imageWidth: item.width, imageHeight: item.height });
}

function takeRegions(data) {
  const item = currentItem();
  if (!data.regions || !map || data.token !== map.token || !item) return;
  found = data.regions;
  drawRegions(parts.regions, found, data, item, pickRegion);
  tell("regions");
}

export const pickRegion = (index) => chooseRegion(found, index);

export const tools = {
  map: () => toggle("map"),
  wipe: () => {
    if (!parts.layers.shown.map) toggle("map");
    toggle("wipe");
  },
  regions: () => {
    const hidden = parts.stage.stage.classList.toggle("no-regions");
    pressed("regions", !hidden);
  },
  zoom: (factor) => parts.stage.zoom(factor),
  fit: () => parts.stage.fit(),
};

function toggle(name) {
  const value = !parts.layers.shown[name];
  parts.layers.set({ [name]: value });
  pressed(name, value);
}

const pressed = (name, value) =>
  byId("tools").querySelector(`[data-tool=${name}]`).setAttribute("aria-pressed", String(value));

export function setUpViewer() {
  const room = byId("stage-room");
  const percent = el("output", { class: "percent" });
  const stage = makeStage(room, (scale) => (percent.textContent = `${Math.round(scale * 100)} %`));
  const layers = makeLayers(stage.stage);
  const regions = makeRegionLayer(stage.stage);
  stage.stage.append(layers.wipe);
  const message = el("p", { class: "stage-message", role: "status", hidden: true });
  layers.picture.addEventListener("error", () => {
    if (!layers.picture.hasAttribute("src")) return;
    stage.stage.hidden = true;
    message.hidden = false;
    message.textContent = "The picture cannot be loaded now.";
  });
  const readout = el("output", { class: "readout", "aria-hidden": "true" });
  room.append(message, readout);
  parts = { room, stage, layers, regions, message };
  fillTools(percent);
  fillLegend();
  room.addEventListener("pointermove", (event) => (readout.textContent = readMap(event)));
  room.addEventListener("pointerleave", () => (readout.textContent = ""));
  whenRegions(takeRegions);
  on("threshold", redrawRegions);
  on("region", () => markChosen(regions));
  // A picture that is scored while it is open, or scored anew, is shown as it is now.
  on("items", () => {
    const item = currentItem();
    if (item && versionOf(item) !== loaded) load().catch(failed);
  });
  on("item", () => {
    if (!state.current) document.body.dataset.open = "none";
  });
  on("online", () => state.current && load().catch(failed));
}

// Place and map value under the pointer, for those who want the figure.
function readMap(event) {
  if (!map) return "";
  const box = parts.stage.stage.getBoundingClientRect();
  const [u, v] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  if (!(u >= 0 && u < 1 && v >= 0 && v < 1)) return "";
  const value = map.grey[Math.floor(v * map.height) * map.width + Math.floor(u * map.width)] / 255;
  const item = currentItem();
  return `x ${Math.floor(u * item.width)}  y ${Math.floor(v * item.height)}  map ${value.toFixed(2)}`;
}

function fillTools(percent) {
  const tool = (name, text, key, on, what) =>
    el("button", {
      type: "button",
      "data-tool": name,
      "aria-pressed": String(on),
      text,
      title: `${what} (${key})`,
      onclick: tools[name],
    });
  const icon = (text, label, onclick) =>
    el("button", { type: "button", class: "icon", text, title: label, "aria-label": label, onclick });
  const opacity = el("input", {
    type: "range",
    id: "opacity",
    min: 0,
    max: 1,
    step: 0.01,
    value: 0.7,
    "aria-label": "Opacity of the map",
    title: "Opacity of the map",
    oninput: ({ target }) => parts.layers.set({ opacity: Number(target.value) }),
  });
  byId("tools").append(
    el("button", {
      type: "button",
      class: "icon back",
      text: "←",
      title: "Back to the gallery (Esc)",
      "aria-label": "Back to the gallery",
      onclick: closeItem,
    }),
    tool("map", "Map", "M", true, "What looks unusual, in colours"),
    opacity,
    tool("wipe", "Wipe", "W", false, "The picture without the map beside it with the map"),
    tool("regions", "Regions", "R", true, "Outlines of what reaches the threshold"),
    el("span", { class: "spacer" }),
    icon("−", "Smaller (−)", () => tools.zoom(0.8)),
    percent,
    icon("+", "Larger (+)", () => tools.zoom(1.25)),
    el("button", { type: "button", class: "quiet", text: "Fit", title: "Fit (0)", onclick: tools.fit }),
  );
}

// The scale of map and score alike: absolute, 0 to 1, the same for every picture, with the threshold marked on it.
function fillLegend() {
  const scale = el("canvas", { class: "scale", width: 256, height: 1, "aria-hidden": "true" });
  const mark = el("span", { class: "scale-mark", "aria-hidden": "true" });
  const value = el("output", { id: "region-threshold" });
  const count = el("span", { class: "soft", id: "region-count" });
  const ticks = el(
    "div",
    { class: "ticks", "aria-hidden": "true" },
    ...["0 usual", "0.25", "0.5", "0.75", "1 unusual"].map((text) => el("span", { text })),
  );
  byId("legend").append(
    el("div", { class: "row" }, el("span", { text: "Regions from" }), value, count),
    el("div", { class: "track" }, scale, mark, ticks),
  );
  const draw = () => {
    const item = currentItem();
    const threshold = item ? thresholdOf(item) : scoreThreshold();
    mark.style.left = `${threshold * 100}%`;
    value.textContent = threshold.toFixed(2);
  };
  on("batch about threshold item items", draw);
  on("regions finding", () => (count.textContent = map ? countText() : ""));
  on("about", () => paintScale(scale));
}

function countText() {
  if (found.length) return `${found.length} on this picture`;
  return `none this high; the highest here is ${map.peak.toFixed(2)}`;
}

function paintScale(canvas) {
  const pen = canvas.getContext("2d");
  state.about.palette.forEach((colour, index) => {
    pen.fillStyle = colour;
    pen.fillRect(index, 0, 1, 1);
  });
}
