// Zoom and pan. The stage is as large as the picture at the present scale and moves inside its room.
import { el } from "./dom.js";

const MOST = 16;
const LEAST = 0.02;
const MARGIN = 16;

// `stage` holds the layers; `onScale` hears of each new scale.
export function makeStage(room, onScale) {
  const stage = el("div", { class: "stage", role: "group", hidden: true });
  room.append(stage);
  const view = { width: 1, height: 1, scale: 1, x: 0, y: 0, fitted: true };

  const apply = () => {
    const [width, height] = [view.width * view.scale, view.height * view.scale];
    // A picture smaller than its room is centred; a larger one never leaves it altogether.
    view.x =
      width <= room.clientWidth
        ? (room.clientWidth - width) / 2
        : Math.min(MARGIN, Math.max(room.clientWidth - width - MARGIN, view.x));
    view.y =
      height <= room.clientHeight
        ? (room.clientHeight - height) / 2
        : Math.min(MARGIN, Math.max(room.clientHeight - height - MARGIN, view.y));
    stage.style.width = `${width}px`;
    stage.style.height = `${height}px`;
    stage.style.transform = `translate(${view.x}px, ${view.y}px)`;
    stage.classList.toggle("pixels", view.scale >= 3);
    onScale(view.scale);
  };
  const fit = () => {
    const wide = (room.clientWidth - 2 * MARGIN) / view.width;
    const tall = (room.clientHeight - 2 * MARGIN) / view.height;
    view.scale = Math.max(LEAST, Math.min(wide, tall, 4));
    view.fitted = true;
    apply();
  };
  const zoom = (factor, x = room.clientWidth / 2, y = room.clientHeight / 2) => {
    const scale = Math.min(MOST, Math.max(LEAST, view.scale * factor));
    view.x = x - ((x - view.x) * scale) / view.scale;
    view.y = y - ((y - view.y) * scale) / view.scale;
    view.scale = scale;
    view.fitted = false;
    apply();
  };
  const setSize = (width, height) => {
    Object.assign(view, { width, height });
    stage.hidden = false;
    fit();
  };
  new ResizeObserver(() => (view.fitted ? fit() : apply())).observe(room);
  followPointers(room, view, zoom, apply);
  room.addEventListener("dblclick", () => (view.fitted ? zoom(1 / view.scale) : fit()));
  return { stage, fit, zoom, setSize, view };
}

function followPointers(room, view, zoom, apply) {
  const held = new Map();
  const place = (event) => {
    const box = room.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  room.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), ...place(event));
    },
    { passive: false },
  );
  room.addEventListener("pointerdown", (event) => {
    if (event.target.closest("button, .wipe, .region")) return;
    room.setPointerCapture(event.pointerId);
    held.set(event.pointerId, place(event));
  });
  room.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before) return;
    const now = place(event);
    const other = [...held].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
      zoom(apart(now, other) / Math.max(1, apart(before, other)), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else {
      view.x += now[0] - before[0];
      view.y += now[1] - before[1];
      view.fitted = false;
      apply();
    }
    held.set(event.pointerId, now);
  });
  for (const end of ["pointerup", "pointercancel"]) room.addEventListener(end, (event) => held.delete(event.pointerId));
}
