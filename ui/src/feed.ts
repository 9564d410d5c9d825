/** Notifications from the API that something has changed: one stream for the page, open while the page has listeners and is visible. */

import { restUrl } from "./api";

/** What can change, as the API names it. */
export type Subject = "workers" | "jobs" | "audit" | "accesses" | "bundles" | "runtimes" | "releases";

type Listener = (changed: ReadonlySet<string>) => void;

/** The API sends an event every ten seconds: after a longer silence the stream counts as broken. */
const SILENT_MS = 25_000;
/** How long to wait before retrying a refused stream. Pages poll meanwhile. */
const RETRY_MS = 60_000;
/** How long the stream stays open without listeners: a page that shows another list needs it again at once. */
const LINGER_MS = 2_000;

const listeners = new Set<Listener>();
let stream: EventSource | undefined;
let receivedAt = -Infinity;
let timer: ReturnType<typeof setTimeout> | undefined;

/** Call *listener* with what has changed. Return a function that ends this. */
export function listen(listener: Listener): () => void {
  if (!listeners.size) document.addEventListener("visibilitychange", openOrClose);
  listeners.add(listener);
  openOrClose();
  return () => {
    listeners.delete(listener);
    if (listeners.size) return;
    document.removeEventListener("visibilitychange", openOrClose);
    schedule(openOrClose, LINGER_MS);
  };
}

/** Return whether the API notifies us of changes; if not, callers must poll. */
export function isConnected(): boolean {
  return stream !== undefined && performance.now() - receivedAt < SILENT_MS;
}

/** Open or close the stream. A hidden page has none: browsers limit the connections to a host, for all windows together. */
function openOrClose(): void {
  clearTimeout(timer);
  const isWanted = listeners.size > 0 && document.visibilityState === "visible" && typeof EventSource !== "undefined";
  if (isWanted && !stream) open();
  if (!isWanted) close();
}

function open(): void {
  const source = new EventSource(restUrl("live"));
  stream = source;
  source.addEventListener("beat", () => (receivedAt = performance.now()));
  source.addEventListener("changed", (event: MessageEvent<string>) => {
    receivedAt = performance.now();
    const changed = new Set(event.data.split(" "));
    for (const listener of listeners) listener(changed);
  });
  source.addEventListener("error", () => {
    receivedAt = -Infinity;
    if (source.readyState !== EventSource.CLOSED || stream !== source) return; // the browser reconnects
    close();
    schedule(openOrClose, RETRY_MS);
  });
}

function close(): void {
  stream?.close();
  stream = undefined;
  receivedAt = -Infinity;
}

function schedule(work: () => void, ms: number): void {
  clearTimeout(timer);
  timer = setTimeout(work, ms);
}
