// The grid of cards, windowed: only rows that can be seen are in the document, whatever the number of pictures.
import { byId, el } from "./dom.js";
import { fillCard, makeCard } from "./card.js";
import { openItem } from "./viewer.js";
import { on, state, tell } from "./state.js";

const GAP = 12;
const BELOW_PICTURE = 31;
const SPARE_ROWS = 2;

const sizer = el("div", { class: "sizer" });
const hint = el("p", { class: "nothing", hidden: true });
const shown = new Map(); // id -> card
const spare = [];
let grid = null;
let geometry = { columns: 1, width: 160, height: 160, room: 400 };
let frame = null;
let version = 0; // of everything that cards show; scrolling alone leaves it, and cards that stay, as they are

export function setUpGallery() {
  grid = byId("grid");
  grid.append(sizer, hint);
  new ResizeObserver(resized).observe(grid);
  grid.addEventListener("scroll", drawSoon, { passive: true });
  grid.addEventListener("click", click);
  grid.addEventListener("dblclick", (event) => event.preventDefault());
  grid.addEventListener("focus", () => {
    if (!state.active && state.order.length) setActive(state.order[0], false);
  });
  // Not as a link would: the address holds the page's state.
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    grid.focus();
  });
  on("items threshold picked upload batch", refillSoon);
  on("item", () => {
    if (state.current) setActive(state.current);
    refillSoon();
  });
  on("batch", () => {
    if (!state.items.size) grid.scrollTop = 0;
  });
  measure();
}

// Opening and closing the viewer changes the number of columns; the picture at hand stays in sight.
function resized() {
  const before = geometry.columns;
  measure();
  version += 1;
  draw();
  if (geometry.columns !== before) reveal(state.order.indexOf(state.active));
}

function measure() {
  const wanted = document.body.dataset.open === "item" ? 118 : 168;
  const room = grid.clientWidth - 2 * GAP;
  const columns = Math.max(2, Math.floor((room + GAP) / (wanted + GAP)));
  const width = Math.floor((room - GAP * (columns - 1)) / columns);
  geometry = { columns, width, height: Math.round(width * 0.75) + BELOW_PICTURE, room: grid.clientHeight };
}

export const columns = () => geometry.columns;

function drawSoon() {
  frame ??= requestAnimationFrame(() => {
    frame = null;
    draw();
  });
}

function refillSoon() {
  version += 1;
  drawSoon();
}

function draw() {
  const { columns, width, height, room } = geometry;
  const step = height + GAP;
  const count = state.order.length;
  sizer.style.height = `${Math.ceil(count / columns) * step + GAP}px`;
  hint.hidden = count > 0;
  if (!count) hint.textContent = emptyText();
  const top = grid.scrollTop;
  const first = Math.max(0, Math.floor(top / step) - SPARE_ROWS) * columns;
  const last = Math.min(count, (Math.ceil((top + room) / step) + SPARE_ROWS) * columns);
  const wanted = new Set(state.order.slice(first, last));
  for (const [id, card] of shown) if (!wanted.has(id)) retire(id, card);
  for (let index = first; index < last; index += 1) {
    const id = state.order[index];
    const card = shown.get(id) ?? enter(id);
    if (card.version === version) continue;
    card.version = version;
    const x = GAP + (index % columns) * (width + GAP);
    const y = GAP + Math.floor(index / columns) * step;
    card.node.style.transform = `translate(${x}px, ${y}px)`;
    card.node.style.width = `${width}px`;
    fillCard(card, state.items.get(id), index, count);
  }
  grid.setAttribute("aria-activedescendant", shown.has(state.active) ? `card-${state.active}` : "");
}

function emptyText() {
  if (!state.batch) return "";
  if (state.items.size) return "No picture fits these filters.";
  if (state.sending) return "Sending the first pictures …";
  return state.batch.counts?.total ? "Loading …" : "No pictures yet. Drop some here.";
}

function enter(id) {
  const card = spare.pop() ?? makeCard();
  card.version = -1;
  shown.set(id, card);
  sizer.append(card.node);
  return card;
}

function retire(id, card) {
  shown.delete(id);
  card.node.remove();
  if (spare.length < 80) spare.push(card);
}

export function setActive(id, scroll = true) {
  state.active = id;
  if (scroll) reveal(state.order.indexOf(id));
  refillSoon();
}

function reveal(index) {
  if (index < 0) return;
  const step = geometry.height + GAP;
  const top = Math.floor(index / geometry.columns) * step;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + step + GAP > grid.scrollTop + geometry.room) grid.scrollTop = top + step + GAP - geometry.room;
}

// Steps through the gallery in the order that is seen; opens the next one if the viewer is open.
export function move(by) {
  if (!state.order.length) return;
  const at = state.order.indexOf(state.current ?? state.active);
  const to = at < 0 ? 0 : Math.min(state.order.length - 1, Math.max(0, at + by));
  const id = state.order[to];
  if (state.current) openItem(id);
  else setActive(id);
}

export function toggleTick(id) {
  if (!id || state.items.get(id)?.state === "failed") return;
  if (!state.picked.delete(id)) state.picked.add(id);
  tell("picked");
}

let tickedLast = null;
function click(event) {
  const id = event.target.closest(".card")?.dataset.id;
  if (!id) return;
  const ticking = event.target.closest(".tick") || event.ctrlKey || event.metaKey || event.shiftKey;
  if (!ticking) {
    openItem(id);
    return;
  }
  if (event.shiftKey && tickedLast) {
    const [from, to] = [state.order.indexOf(tickedLast), state.order.indexOf(id)].sort((a, b) => a - b);
    for (const between of state.order.slice(Math.max(from, 0), to + 1)) state.picked.add(between);
    tell("picked");
  } else {
    toggleTick(id);
  }
  tickedLast = id;
  setActive(id, false);
}
