// What pictures are compared with: nothing, the batch's other pictures, either of them as the service sees fit, or
// pictures somebody ticked as good.
import { call } from "./api.js";
import { poll } from "./batches.js";
import { closeMenus } from "./dialogs.js";
import { byId, el, plural } from "./dom.js";
import { failed, say, toast } from "./notices.js";
import { forgetThreshold, on, state, tell } from "./state.js";

const CHOICES = [
  ["auto", "Automatic", "The other pictures, once there are 8 and they are alike; else nothing."],
  ["none", "Nothing", "Each picture is judged by itself."],
  ["folder", "The other pictures", "What most of them share counts as normal."],
];

// From so many good pictures the threshold means something (README, "context").
const ENOUGH = 4;

async function setContext(body) {
  closeMenus();
  state.batch = await call("PUT", `/v1/batches/${encodeURIComponent(state.batch.id)}/context`, { json: body });
  forgetThreshold();
  for (const topic of ["batch", "threshold"]) tell(topic);
  say("The batch is scored anew.");
  poll(true);
}

export async function theseAreGood() {
  const items = [...state.picked].filter((id) => state.items.get(id)?.state !== "failed");
  if (!items.length) {
    toast("Tick some good pictures first (X).");
    return;
  }
  await setContext({ kind: "references", items });
  state.picked.clear();
  tell("picked");
  const guess = items.length < ENOUGH ? " So few make the threshold a guess: trust the order and the maps." : "";
  toast(`Scoring anew beside ${plural(items.length, "good reference")}.${guess}`);
}

const NAMES = { none: "nothing", folder: "the other pictures" };
const chosen = (context) => (context.auto ? "auto" : context.kind);

function draw() {
  const context = state.batch?.context;
  byId("context-menu").hidden = !state.batch;
  if (!context) return;
  const name = context.auto
    ? "automatic"
    : (NAMES[context.kind] ?? plural(context.references ?? 0, "good reference"));
  byId("context-name").textContent =
    context.state === "failed" ? "failed" : context.state === "building" ? `${name} …` : name;
  byId("context-name").title = now(context);
}

// What an automatic choice came to, and why.
function now(context) {
  if (!context.auto || context.state !== "ready") return "";
  return `Now: ${NAMES[context.kind]}${context.reason ? `; ${context.reason}` : ""}.`;
}

function fillMenu() {
  const { context } = state.batch;
  const entries = CHOICES.map(([kind, title, text]) =>
    el(
      "button",
      {
        type: "button",
        class: "entry two",
        "aria-pressed": String(chosen(context) === kind),
        onclick: () => setContext({ kind }).catch(failed),
      },
      el("span", { text: title }),
      el("span", { class: "note", text: (kind === "auto" && now(context)) || text }),
    ),
  );
  const ticked = state.picked.size;
  const good = el(
    "button",
    {
      type: "button",
      class: "entry two",
      "aria-pressed": String(chosen(context) === "references"),
      disabled: !ticked,
      onclick: () => theseAreGood().catch(failed),
    },
    el("span", { text: "Good references" }),
    el("span", {
      class: "note",
      text: ticked ? `Use the ${plural(ticked, "ticked picture")}.` : "Tick some first: the box on a picture, or X.",
    }),
  );
  const failure = context.error
    ? el("p", { class: "note bad", text: context.error.message ?? String(context.error) })
    : null;
  byId("context-body").replaceChildren(
    el("p", { class: "menu-title", text: "Compare with" }),
    ...entries,
    good,
    ...[failure].filter(Boolean),
  );
}

function drawPicked() {
  const bar = byId("picked");
  const count = state.picked.size;
  bar.hidden = !count;
  if (!count) return;
  const clear = () => {
    state.picked.clear();
    tell("picked");
  };
  bar.replaceChildren(
    el("span", { text: `${count} ticked` }),
    el(
      "button",
      {
        type: "button",
        class: "primary",
        title: "Compare all pictures with these (G)",
        onclick: () => theseAreGood().catch(failed),
      },
      "These are good",
    ),
    el("button", { type: "button", class: "quiet", text: "Clear", onclick: clear }),
  );
}

export function setUpContext() {
  on("batch", draw);
  on("picked batch", drawPicked);
  byId("context-menu").addEventListener("menuopen", fillMenu);
}
