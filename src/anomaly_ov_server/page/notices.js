// What is said beside the work: toasts, the live region for screen readers, and the banner when the service is gone.
import { setOnline } from "./api.js";
import { byId, el } from "./dom.js";
import { on } from "./state.js";

const RETRY_SECONDS = 5;

export function say(text) {
  byId("live").textContent = text;
}

export function toast(text, { bad = false, action = null, label = "" } = {}) {
  const node = el("div", { class: bad ? "toast bad" : "toast", role: bad ? "alert" : "status" }, el("span", { text }));
  const close = () => node.remove();
  if (action) {
    node.append(
      el("button", {
        type: "button",
        text: label,
        onclick: () => {
          close();
          action();
        },
      }),
    );
  }
  byId("toasts").append(node);
  while (byId("toasts").children.length > 3) byId("toasts").firstChild.remove();
  setTimeout(close, bad ? 8000 : 4000);
}

export const failed = (error) => {
  // The banner already says that the service is gone; a closed stream is what the user asked for.
  if (error.gone || error.name === "AbortError") return;
  toast([error.message, error.hint].filter(Boolean).join(" "), { bad: true });
};

async function check() {
  try {
    await fetch("/healthz", { cache: "no-store" });
    setOnline(true);
  } catch {
    setOnline(false);
  }
}

export function watchService() {
  let timer = null;
  const text = el("span");
  const banner = byId("banner");
  banner.append(text, el("button", { type: "button", text: "Try now", onclick: check }));
  on("offline", () => {
    banner.hidden = false;
    let left = RETRY_SECONDS;
    clearInterval(timer);
    timer = setInterval(() => {
      left -= 1;
      text.textContent = `The service does not answer. Decisions wait here until it does; next try in ${Math.max(left, 0)} s.`;
      if (left <= 0) {
        left = RETRY_SECONDS;
        check();
      }
    }, 1000);
    text.textContent = "The service does not answer. Decisions wait here until it does; trying again.";
  });
  on("online", () => {
    clearInterval(timer);
    banner.hidden = true;
    say("The service answers again.");
  });
}
