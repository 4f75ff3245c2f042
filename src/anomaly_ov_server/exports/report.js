"use strict";
(() => {
  const gallery = document.getElementById("gallery");
  const tools = document.getElementById("tools");
  const dialog = document.getElementById("large");
  const byId = (id) => document.getElementById(id);
  const words = new Map();
  const cards = [...gallery.children];
  for (const card of cards) {
    const told = card.querySelectorAll(".name, .note");
    words.set(card, [...told].map((one) => one.textContent).join("\n").toLowerCase());
  }
  const name = (card) => card.querySelector(".name").textContent;
  const orders = {
    place: (a, b) => a.dataset.place - b.dataset.place,
    lowest: (a, b) => unscored(a) - unscored(b) || b.dataset.place - a.dataset.place,
    number: (a, b) => a.dataset.number - b.dataset.number,
    name: (a, b) => name(a).localeCompare(name(b), undefined, { numeric: true }),
  };
  const unscored = (card) => card.classList.contains("unscored");

  function show() {
    const kind = tools.elements.show.value;
    const wanted = byId("find").value.trim().toLowerCase();
    let count = 0;
    for (const card of cards) {
      const fits = (kind === "all" || card.classList.contains(kind)) && words.get(card).includes(wanted);
      card.hidden = !fits;
      count += fits;
    }
    byId("none").hidden = count > 0;
  }
  function order() {
    cards.sort(orders[byId("order").value]);
    gallery.append(...cards);
  }
  function look() {
    document.body.classList.toggle("maps", byId("maps").checked);
    document.body.classList.toggle("plain", !byId("boxes").checked);
  }
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("input", () => { show(); look(); });
  byId("order").addEventListener("change", order);

  let open = null;
  const stage = dialog.querySelector(".stage");
  const mapButton = dialog.querySelector("[data-map]");
  function enlarge(card) {
    open = card;
    stage.replaceChildren(card.querySelector(".shot").cloneNode(true));
    const text = card.querySelector(".text").cloneNode(true);
    for (const part of text.querySelectorAll("details")) part.open = true;
    dialog.querySelector(".about").replaceChildren(text);
    mapButton.hidden = !card.querySelector(".layer");
    if (!dialog.open) dialog.showModal();
    dialog.setAttribute("aria-label", name(card));
  }
  function step(by) {
    const shown = cards.filter((card) => !card.hidden && card.querySelector(".shot"));
    const next = shown[shown.indexOf(open) + by];
    if (next) enlarge(next);
  }
  function flip() {
    mapButton.setAttribute("aria-pressed", String(stage.classList.toggle("mapped")));
  }
  gallery.addEventListener("click", (event) => {
    const frame = event.target.closest("button.frame");
    if (frame) enlarge(frame.closest(".card"));
  });
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (event.target === dialog || (button && "close" in button.dataset)) dialog.close();
    else if (button && "map" in button.dataset) flip();
    else if (button) step(Number(button.dataset.step));
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "m" || event.key === "M") flip();
  });
  dialog.addEventListener("close", () => open && open.querySelector("button.frame").focus());
  show();
  look();
  if (byId("order").value !== "place") order();
})();
