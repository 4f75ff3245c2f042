// Puts the parts together and brings back what the address says.
import { get, patiently } from "./api.js";
import { home, onlyBatch, openBatch, setUpBatches } from "./batches.js";
import { setUpChat } from "./chat.js";
import { setUpContext } from "./context.js";
import { setUpDialogs } from "./dialogs.js";
import { setUpDrop } from "./drop.js";
import { setUpEmpty } from "./empty.js";
import { setUpExports } from "./exports.js";
import { setUpFacts } from "./facts.js";
import { setUpFilters } from "./filters.js";
import { setUpGallery } from "./gallery.js";
import { arrivedAt, keepHash, readHash } from "./hash.js";
import { setUpKeys } from "./keys.js";
import { failed, toast, watchService } from "./notices.js";
import { rearrange } from "./order.js";
import { setUpProgress } from "./progress.js";
import { setUpReview } from "./review.js";
import { markStarted, state, tell } from "./state.js";
import { setUpUpload } from "./upload.js";
import { closeItem, openItem, setUpViewer } from "./viewer.js";

const parts = [
  watchService,
  setUpDialogs,
  setUpFilters,
  setUpGallery,
  setUpViewer,
  setUpFacts,
  setUpReview,
  setUpChat,
  setUpContext,
  setUpExports,
  setUpProgress,
  setUpBatches,
  setUpEmpty,
  setUpUpload,
  setUpDrop,
  setUpKeys,
];
for (const setUp of parts) setUp();

async function open({ batch, item }) {
  if (!batch) {
    home();
    return;
  }
  try {
    await openBatch(batch);
    if (item) await openKnown(item);
  } catch (error) {
    if (error.status !== 404) throw error;
    toast("The batch of this address is not there any more.", { bad: true });
    home();
  }
}

// An item beyond the first page of the list is asked for by itself.
async function openKnown(id) {
  if (!state.items.has(id)) {
    const { finding, decisions, ...item } = await get(`/v1/items/${encodeURIComponent(id)}`);
    if (item.batch !== state.batch.id) return;
    state.items.set(id, item);
  }
  openItem(id);
}

async function start() {
  const wanted = readHash();
  state.about = await patiently(() => get("/v1/about"), null, { longest: 5 });
  tell("about");
  // Whoever names pictures on the command line, or comes back to the one batch there is, wants to see them.
  if (!wanted.batch) wanted.batch = await onlyBatch();
  await open(wanted);
  keepHash();
}

// Back, forward, or an address typed by hand.
addEventListener("hashchange", () => {
  const wanted = readHash();
  arrivedAt(wanted.batch, wanted.item);
  tell("threshold");
  if (wanted.batch !== (state.batch?.id ?? null)) {
    open(wanted).catch(failed);
    return;
  }
  rearrange();
  if (wanted.item && wanted.item !== state.current) openKnown(wanted.item).catch(failed);
  else if (!wanted.item && state.current) closeItem();
});

start().catch(failed).finally(markStarted);
