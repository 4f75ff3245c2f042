// Keys, for those who look through hundreds of pictures. Fields keep their own; so do sliders, menus and dialogs.
import { focusQuestion } from "./chat.js";
import { theseAreGood } from "./context.js";
import { closeMenus, showHelp } from "./dialogs.js";
import { byId } from "./dom.js";
import { columns, move, toggleTick } from "./gallery.js";
import { failed } from "./notices.js";
import { decide, undo } from "./review.js";
import { state, tell } from "./state.js";
import { closeItem, openItem, pickRegion, tools } from "./viewer.js";

const KEYS = {
  n: () => decide("normal"),
  a: () => decide("anomalous"),
  u: () => decide("unsure"),
  z: undo,
  j: () => move(1),
  k: () => move(-1),
  ArrowRight: () => move(1),
  ArrowLeft: () => move(-1),
  ArrowDown: () => move(state.current ? 1 : columns()),
  ArrowUp: () => move(state.current ? -1 : -columns()),
  Enter: () => state.active && openItem(state.active),
  x: () => toggleTick(state.current ?? state.active),
  " ": () => toggleTick(state.current ?? state.active),
  g: () => theseAreGood().catch(failed),
  m: () => state.current && tools.map(),
  w: () => state.current && tools.wipe(),
  r: () => state.current && tools.regions(),
  "+": () => state.current && tools.zoom(1.25),
  "=": () => state.current && tools.zoom(1.25),
  "-": () => state.current && tools.zoom(0.8),
  0: () => state.current && tools.fit(),
  q: () => state.current && focusQuestion(),
  "/": () => byId("search").focus(),
  "?": showHelp,
  Escape: escape,
};

function escape() {
  closeMenus();
  if (state.region) {
    state.region = null;
    tell("region");
  } else if (state.current) closeItem();
}

const WRITING = "input:not([type=range], [type=checkbox]), textarea, select";
const OWN = { " ": "button, a, summary, input", Enter: "button, a, summary, input" };

function keyed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || byId("dialog").open) return;
  const { target, key } = event;
  if (target.matches(WRITING)) {
    if (key === "Escape") target.blur();
    return;
  }
  // Arrows belong to the slider that has the focus; space and Enter to the button.
  if (target.matches("input[type=range]") && /^(Arrow|Home|End|Page)/.test(key)) return;
  if (OWN[key] && target.matches(OWN[key])) return;
  const name = key.length === 1 ? key.toLowerCase() : key;
  const action = KEYS[name] ?? (/^[1-9]$/.test(key) && state.current ? () => pickRegion(Number(key) - 1) : null);
  if (!action || (!state.batch && !["?", "Escape"].includes(name))) return;
  event.preventDefault();
  action();
}

export const setUpKeys = () => addEventListener("keydown", keyed);
