// Outlines of the regions, and a numbered button on each: click or press it to ask about that place.
import { el, svg } from "./dom.js";
import { state, tell } from "./state.js";

const NUMBERED = 20;

export function makeRegionLayer(stage) {
  const drawing = svg("svg", { class: "layer regions", "aria-hidden": "true", preserveAspectRatio: "none" });
  const badges = el("div", { class: "layer badges", role: "group", "aria-label": "Regions" });
  stage.append(drawing, badges);
  return { drawing, badges };
}

// `found` in picture pixels; outlines in map cells, which the drawing's own scale turns into picture pixels.
export function drawRegions(layer, found, mapSize, item, choose) {
  const [scaleX, scaleY] = [item.width / mapSize.width, item.height / mapSize.height];
  layer.drawing.setAttribute("viewBox", `0 0 ${item.width} ${item.height}`);
  const shapes = found.map((region, index) => {
    const [x0, y0, x1, y1] = region.box;
    const room = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
    const line = region.outline
      ? svg("path", { class: "line", d: region.outline, transform: `scale(${scaleX} ${scaleY})` })
      : svg("rect", { class: "line", ...room });
    const shape = svg(
      "g",
      { class: "region", "data-index": index },
      svg("rect", { class: "hit", ...room }),
      line.cloneNode(),
      line,
    );
    shape.children[1].classList.add("halo");
    shape.addEventListener("click", () => choose(index));
    return shape;
  });
  // The larger lie below, so that a small one inside a large box can still be hit.
  layer.drawing.replaceChildren(...shapes.sort((a, b) => found[b.dataset.index].area - found[a.dataset.index].area));
  const numbered = found.slice(0, NUMBERED);
  layer.badges.replaceChildren(...numbered.map((region, index) => badge(region, index, mapSize, choose)));
  markChosen(layer);
}

function badge(region, index, mapSize, choose) {
  const button = el("button", {
    type: "button",
    class: "badge",
    "data-index": index,
    text: index + 1,
    title: `Region ${index + 1}: peak ${region.peak.toFixed(2)}. Ask about it.`,
    "aria-label": `Region ${index + 1}, peak ${region.peak.toFixed(2)}: ask about it`,
    onclick: () => choose(index),
  });
  button.style.left = `${(region.anchor[0] / mapSize.width) * 100}%`;
  button.style.top = `${(region.anchor[1] / mapSize.height) * 100}%`;
  return button;
}

export function markChosen(layer) {
  for (const node of [...layer.drawing.children, ...layer.badges.children]) {
    node.classList.toggle("chosen", Number(node.dataset.index) === state.region?.number - 1);
  }
}

export function chooseRegion(found, index) {
  const region = found[index];
  if (!region) return;
  state.region = { number: index + 1, box: region.box, index: recordIndex(region) };
  tell("region");
}

// Which region of the finding's own record this is: the service knows those, at the threshold it used. Null when
// the slider made one that overlaps none of them.
function recordIndex({ box }) {
  let best = null;
  let most = 0;
  (state.finding?.regions ?? []).forEach((region, index) => {
    const width = Math.min(box[2], region.box[2]) - Math.max(box[0], region.box[0]);
    const height = Math.min(box[3], region.box[3]) - Math.max(box[1], region.box[1]);
    const shared = Math.max(0, width) * Math.max(0, height);
    if (shared > most) [best, most] = [index, shared];
  });
  return best;
}
