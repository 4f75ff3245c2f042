// What lies on the stage: the picture, the same in grey under the map's colours, and the wipe.
import { request, fileOf } from "./api.js";
import { el } from "./dom.js";
import { mapColours, paint } from "./map.js";

export function makeLayers(stage) {
  const canvas = (kind) => el("canvas", { class: `layer ${kind}`, "aria-hidden": "true" });
  const parts = {
    picture: el("img", { class: "layer picture", alt: "", draggable: "false" }),
    after: el("div", { class: "layer after" }),
    grey: el("img", { class: "layer grey", alt: "", draggable: "false" }),
    map: canvas("map"),
    wipe: el("div", {
      class: "wipe",
      role: "slider",
      tabindex: 0,
      "aria-label": "Before and after",
      "aria-valuemin": 0,
      "aria-valuemax": 100,
      hidden: true,
    }),
  };
  parts.after.append(parts.grey, parts.map);
  stage.append(parts.picture, parts.after);
  const shown = { map: true, wipe: false, opacity: 0.7, cut: 50 };

  const apply = () => {
    parts.after.hidden = !shown.map;
    parts.after.style.opacity = shown.opacity;
    parts.wipe.hidden = !shown.wipe || !shown.map;
    parts.wipe.style.left = `${shown.cut}%`;
    parts.wipe.setAttribute("aria-valuenow", Math.round(shown.cut));
    parts.after.style.clipPath = parts.wipe.hidden ? "" : `inset(0 0 0 ${shown.cut}%)`;
  };
  const set = (changes) => {
    Object.assign(shown, changes);
    apply();
  };
  dragWipe(parts.wipe, stage, shown, set);
  apply();
  return { ...parts, shown, set };
}

function dragWipe(wipe, stage, shown, set) {
  const cut = (value) => set({ cut: Math.min(100, Math.max(0, value)) });
  wipe.addEventListener("pointerdown", (event) => {
    event.stopPropagation();
    wipe.setPointerCapture(event.pointerId);
  });
  wipe.addEventListener("pointermove", (event) => {
    if (!wipe.hasPointerCapture(event.pointerId)) return;
    const box = stage.getBoundingClientRect();
    cut(((event.clientX - box.left) / box.width) * 100);
  });
  wipe.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -2, ArrowRight: 2, Home: -100, End: 100 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    cut(shown.cut + step);
  });
}

async function blobOf(item, part, signal) {
  return (await request("GET", fileOf(item, part), { signal })).blob();
}

function put(canvas, painted) {
  canvas.width = painted.width;
  canvas.height = painted.height;
  canvas.getContext("2d").drawImage(painted.bitmap, 0, 0);
  painted.bitmap.close();
}

// {token, grey, peak, width, height} of the map, once it is on the stage.
export async function showMap(layers, item, signal) {
  const painted = await paint("map", await blobOf(item, "map", signal), mapColours());
  signal.throwIfAborted();
  put(layers.map, painted);
  return painted;
}

export function clearLayers(layers) {
  layers.map.width = layers.map.height = 1;
  for (const picture of [layers.picture, layers.grey]) picture.removeAttribute("src");
}
