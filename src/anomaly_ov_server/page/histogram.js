// How the batch's scores are spread, drawn above the threshold slider and on the same scale.
import { el } from "./dom.js";
import { scoreThreshold, state } from "./state.js";

const BINS = 50;

export const histogram = () => el("canvas", { class: "histogram", width: BINS * 4, height: 36, "aria-hidden": "true" });

export function drawHistogram(canvas) {
  const bins = new Array(BINS).fill(0);
  for (const item of state.items.values()) {
    if (item.score !== null) bins[Math.min(BINS - 1, Math.floor(item.score * BINS))] += 1;
  }
  const style = getComputedStyle(canvas);
  // The style sheet's colours reach a canvas through two properties that are always resolved.
  const [calm, loud] = [style.color, style.borderTopColor];
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const most = Math.max(1, ...bins);
  bins.forEach((count, index) => {
    if (!count) return;
    // The square root keeps single pictures visible beside hundreds.
    const tall = Math.max(2, Math.sqrt(count / most) * canvas.height);
    pen.fillStyle = (index + 0.5) / BINS >= scoreThreshold() ? loud : calm;
    pen.fillRect(index * 4, canvas.height - tall, 3, tall);
  });
}
