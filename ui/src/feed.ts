/** Hears from the API that something has changed: one stream for the page, open while somebody listens and looks. */

import { restUrl } from "./api";

/** What may change, as the API names it. */
export type Subject = "workers" | "jobs" | "audit" | "accesses";

type Listener = (changed: ReadonlySet<string>) => void;

/** The API says something every ten seconds: whoever hears nothing for longer hears nothing at all. */
const SILENT_MS = 25_000;
/** Where the API refuses a stream, pages read by themselves; it is asked again so seldom. */
const REFUSED_MS = 60_000;
/** A page that goes from one list to another listens on. */
const LINGER_MS = 2_000;

const listeners = new Set<Listener>();
let stream: EventSource | undefined;
let heardAt = -Infinity;
let pending: ReturnType<typeof setTimeout> | undefined;

/** Call *listener* with what has changed, until what is returned is called. */
export function listen(listener: Listener): () => void {
  if (!listeners.size) document.addEventListener("visibilitychange", turn);
  listeners.add(listener);
  turn();
  return () => {
    listeners.delete(listener);
    if (listeners.size) return;
    document.removeEventListener("visibilitychange", turn);
    later(turn, LINGER_MS);
  };
}

/** Whether changes are heard of; if not, they have to be looked for. */
export function isHeard(): boolean {
  return stream !== undefined && performance.now() - heardAt < SILENT_MS;
}

/** Open the stream or close it. A hidden page has none: browsers have few connections to a host, for all windows together. */
function turn(): void {
  clearTimeout(pending);
  const isWanted = listeners.size > 0 && document.visibilityState === "visible" && typeof EventSource !== "undefined";
  if (isWanted && !stream) open();
  if (!isWanted) close();
}

function open(): void {
  const ours = new EventSource(restUrl("live"));
  stream = ours;
  ours.addEventListener("beat", () => (heardAt = performance.now()));
  ours.addEventListener("changed", (event: MessageEvent<string>) => {
    heardAt = performance.now();
    const changed = new Set(event.data.split(" "));
    for (const listener of listeners) listener(changed);
  });
  ours.addEventListener("error", () => {
    heardAt = -Infinity;
    if (ours.readyState !== EventSource.CLOSED || stream !== ours) return; // the browser comes back by itself
    close();
    later(turn, REFUSED_MS);
  });
}

function close(): void {
  stream?.close();
  stream = undefined;
  heardAt = -Infinity;
}

function later(work: () => void, ms: number): void {
  clearTimeout(pending);
  pending = setTimeout(work, ms);
}
