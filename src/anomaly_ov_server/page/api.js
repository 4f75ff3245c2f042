// Requests. One error class; a busy service is asked again when it says so; one that is gone is noticed here.
import { tell } from "./state.js";

export class ApiError extends Error {
  constructor(status, message, { type = "error", hint = "", retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, type, hint, retryAfter });
  }
  get gone() {
    return this.status === 0;
  }
}

// Asked for when the service answers 401; resolves once a session is open. Set by dialogs.js.
let openSession = null;
export const setSessionPrompt = (prompt) => (openSession = prompt);

let online = true;
const sleepers = new Set();

export function setOnline(value) {
  if (online === value) return;
  online = value;
  if (value) for (const wake of sleepers) wake();
  tell(value ? "online" : "offline");
}

export async function request(method, path, { json, body, signal } = {}) {
  for (;;) {
    const response = await send(method, path, { json, body, signal });
    if (response.status === 401 && openSession && path !== "/v1/session") {
      await openSession();
      continue;
    }
    if (response.ok) return response;
    throw await errorOf(response);
  }
}

async function send(method, path, { json, body, signal }) {
  const headers = json === undefined ? {} : { "Content-Type": "application/json" };
  try {
    const payload = json === undefined ? body : JSON.stringify(json);
    const response = await fetch(path, { method, headers, body: payload, signal, credentials: "same-origin" });
    setOnline(true);
    return response;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    setOnline(false);
    throw new ApiError(0, "The service does not answer.", { type: "gone" });
  }
}

async function errorOf(response) {
  const wait = Number(response.headers.get("Retry-After")) || null;
  try {
    const { error } = await response.json();
    return new ApiError(response.status, error.message, { type: error.type, hint: error.hint, retryAfter: wait });
  } catch {
    return new ApiError(response.status, `The service answered ${response.status}.`, { retryAfter: wait });
  }
}

export async function call(method, path, options) {
  const response = await request(method, path, options);
  return response.status === 204 ? null : response.json();
}

export const get = (path, options) => call("GET", path, options);

// Tries until it works or fails for a reason that waiting does not mend. onWait(seconds, error) tells of each pause.
export async function patiently(attempt, onWait, { longest = 30 } = {}) {
  for (let turn = 0; ; turn += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof ApiError) || ![0, 429, 502, 503, 504].includes(error.status)) throw error;
      const seconds = Math.min(longest, error.retryAfter ?? 2 ** Math.min(turn, 5));
      onWait?.(seconds, error);
      await pause(seconds);
    }
  }
}

// Ends early when the service is heard of again.
function pause(seconds) {
  return new Promise((resolve) => {
    const wake = () => {
      sleepers.delete(wake);
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(wake, seconds * 1000);
    sleepers.add(wake);
  });
}

// An address of one of an item's files. The context is in the map's because a rescored picture has another map.
export function fileOf(item, part) {
  const path = `/v1/items/${encodeURIComponent(item.id)}/${part}`;
  return part === "map" ? `${path}?seen=${encodeURIComponent(item.context)}` : path;
}
