// How far a running batch is, and what produced its results: both always in sight.
import { byId, duration } from "./dom.js";
import { on, scoreThreshold, state } from "./state.js";

const NAMES = { none: "nothing", folder: "the other pictures", references: "good references" };

function drawProgress() {
  const { batch } = state;
  const building = batch?.context?.state === "building";
  const running = batch?.state === "running";
  byId("progress").hidden = !running && !building;
  if (!running && !building) return;
  const { total, done, failed } = batch.counts;
  byId("progress-bar").max = Math.max(total, 1);
  byId("progress-bar").value = done + failed;
  const parts = building ? ["learning what is normal"] : [`${done + failed} of ${total}`];
  if (!building && batch.rate) parts.push(`${batch.rate.toFixed(1)}/s`);
  if (!building && batch.eta_s) parts.push(`${duration(batch.eta_s)} left`);
  byId("progress-text").textContent = parts.join(" · ");
}

function drawProvenance() {
  const model = state.batch?.model ?? state.about?.model;
  if (!model) return;
  const source = state.threshold === null ? (state.batch?.threshold ?? state.about.threshold).source : "set here";
  const parts = [
    `model ${model.name}`,
    `revision ${model.revision.slice(0, 12)}`,
    `${model.device} ${model.dtype}`,
    `compared with ${NAMES[state.batch?.context?.kind ?? "none"]}`,
    // Last, for its source is long and may be cut.
    `threshold ${scoreThreshold().toFixed(2)} (${source})`,
  ];
  byId("provenance").textContent = parts.join(" · ");
  byId("provenance").title = parts.join("\n");
}

export function setUpProgress() {
  on("batch", drawProgress);
  on("batch about threshold", drawProvenance);
}
