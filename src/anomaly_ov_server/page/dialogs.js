// The one dialog (keys, confirmation, token, camera) and the menus of the bar.
import { ApiError, call, setSessionPrompt } from "./api.js";
import { byId, el } from "./dom.js";

const KEYS = [
  [
    "Deciding",
    [
      ["N", "normal"],
      ["A", "anomalous"],
      ["U", "unsure"],
      ["Z", "undo the last decision"],
    ],
  ],
  [
    "Moving",
    [
      ["→ or J", "next picture"],
      ["← or K", "previous picture"],
      ["Enter", "open"],
      ["Esc", "back to the gallery"],
      ["/", "search"],
    ],
  ],
  [
    "Looking",
    [
      ["M", "map"],
      ["W", "before / after wipe"],
      ["R", "regions"],
      ["+  −  0", "zoom in, out, fit"],
      ["1 … 9", "choose a region"],
    ],
  ],
  ["Asking", [["Q", "write a question"]]],
  [
    "Comparing",
    [
      ["X or Space", "tick a picture"],
      ["G", "these are good: compare with the ticked ones"],
    ],
  ],
];

export function openDialog(title, ...content) {
  const dialog = byId("dialog");
  const close = el("button", {
    type: "button",
    class: "icon",
    text: "✕",
    "aria-label": "Close",
    onclick: () => dialog.close(),
  });
  dialog.replaceChildren(el("header", {}, el("h2", { id: "dialog-title", text: title }), close), ...content);
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}

export function showHelp() {
  const lists = KEYS.map(([title, rows]) =>
    el(
      "section",
      {},
      el("h3", { text: title }),
      el(
        "dl",
        {},
        ...rows.map(([key, what]) => el("div", {}, el("dt", {}, el("kbd", { text: key })), el("dd", { text: what }))),
      ),
    ),
  );
  openDialog(
    "Keys",
    el("div", { class: "keys" }, ...lists),
    el("p", {
      class: "note",
      text: "Drop or paste pictures anywhere. Drag to pan, wheel to zoom, double click to fit.",
    }),
  );
}

export async function confirmed(title, text, label) {
  const dialog = byId("dialog");
  dialog.returnValue = "";
  const answer = openDialog(
    title,
    el("p", { text }),
    el(
      "div",
      { class: "row end" },
      el("button", { type: "button", text: "Cancel", onclick: () => dialog.close("") }),
      el("button", { type: "button", class: "danger", text: label, onclick: () => dialog.close("yes") }),
    ),
  );
  return (await answer) === "yes";
}

// Several requests may be refused at once; they all wait for the same prompt.
let prompt = null;
export function setUpDialogs() {
  setSessionPrompt(() => (prompt ??= askToken().finally(() => (prompt = null))));
  byId("help-open").addEventListener("click", showHelp);
  byId("theme").addEventListener("click", () => window.switchTheme());
  setUpMenus();
}

async function askToken() {
  const dialog = byId("dialog");
  const field = el("input", {
    type: "password",
    autocomplete: "current-password",
    required: true,
    autofocus: true,
    "aria-label": "Token",
    placeholder: "Token",
  });
  const note = el("p", { class: "note bad", role: "alert" });
  for (let open = false; !open;) {
    const submit = async (event) => {
      event.preventDefault();
      try {
        await call("POST", "/v1/session", { json: { token: field.value } });
        open = true;
        dialog.close();
      } catch (error) {
        note.textContent = error instanceof ApiError && error.gone ? error.message : "That is not the token.";
        field.select();
      }
    };
    const closed = openDialog(
      "This service asks for a token",
      el("p", { class: "note", text: "The service was started with it: --token-file or ANOMALY_OV_TOKEN." }),
      el("form", { class: "row", onsubmit: submit }, field, el("button", { class: "primary", text: "Open" })),
      note,
    );
    dialog.querySelector("header button").remove(); // there is nothing to see without it
    await closed;
  }
}

export function closeMenus(except = null) {
  for (const menu of document.querySelectorAll(".menu")) {
    if (menu === except) continue;
    menu.querySelector(".menu-body").hidden = true;
    menu.querySelector(".menu-button").setAttribute("aria-expanded", "false");
  }
}

function setUpMenus() {
  for (const menu of document.querySelectorAll(".menu")) {
    const [button, body] = [menu.querySelector(".menu-button"), menu.querySelector(".menu-body")];
    button.addEventListener("click", () => {
      closeMenus(menu);
      body.hidden = !body.hidden;
      button.setAttribute("aria-expanded", String(!body.hidden));
      // The files that fill menus listen for this, so that a list is as fresh as its opening.
      if (!body.hidden) menu.dispatchEvent(new Event("menuopen"));
    });
    menu.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !body.hidden) {
        event.stopPropagation();
        closeMenus();
        button.focus();
      }
      if (event.key === "ArrowDown" || event.key === "ArrowUp") moveInMenu(event, button, body);
    });
  }
  document.addEventListener("pointerdown", (event) => closeMenus(event.target.closest(".menu")));
}

function moveInMenu(event, button, body) {
  if (body.hidden || event.target.matches("input")) return;
  const all = [...body.querySelectorAll("a, button, input")];
  const at = all.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
  (all[at] ?? (at < 0 ? button : all[0])).focus();
  event.preventDefault();
  event.stopPropagation();
}
