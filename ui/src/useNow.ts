/** The current time, for texts such as "2 minutes ago": one clock for the whole page. */

import { useSyncExternalStore } from "react";

const EVERY_MS = 5_000;

const listeners = new Set<() => void>();
let now = Date.now();
let ticking: ReturnType<typeof setInterval> | undefined;

function tick(): void {
  now = Date.now();
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  if (!listeners.size) {
    now = Date.now();
    ticking = setInterval(tick, EVERY_MS);
  }
  listeners.add(listener);
  return () => {
    listeners.delete(listener);
    if (!listeners.size) clearInterval(ticking);
  };
}

/** Return when the clock last ticked. */
export function useNow(): number {
  return useSyncExternalStore(subscribe, () => now);
}
