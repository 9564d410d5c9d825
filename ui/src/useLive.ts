/** Values that stay current: they are read again when the API reports a change, or at intervals, while the page is visible. */

import { useCallback, useEffect, useRef, useState } from "react";
import { Problem } from "./api";
import { isConnected, listen, type Subject } from "./feed";

export interface Live<T> {
  value: T | undefined;
  /** Why the last attempt failed; the last good value stays. */
  problem: Problem | undefined;
  isLoading: boolean;
  refresh: () => void;
}

export interface Pace {
  /** Changes that make it read again. Absent: it is only polled. */
  subjects?: readonly Subject[];
  /** The polling interval while the API sends no notifications. */
  everyMs?: number;
}

export const EVERY_MS = 5_000;
/** The polling interval while the API sends notifications: none is sent when a worker falls silent, as nothing is written then. */
export const CONNECTED_MS = 15_000;
const MAX_MS = 60_000;
/** While something changes all the time, the pause between reads: at least this, and this many times as long as a read takes. */
const MIN_PAUSE_MS = 1_000;
const PAUSE_FACTOR = 10;

/**
 * Return what *read* returns, and read it again as *pace* says: less often after failures, not at all while the page is hidden.
 * *key* identifies what is read: a new key starts over. The old value stays until the new one is read, so nothing flickers.
 */
export function useLive<T>(key: string, read: (signal: AbortSignal) => Promise<T>, pace: Pace = {}): Live<T> {
  const [state, setState] = useState<{ key: string; value?: T; problem?: Problem }>({ key });
  const [refreshes, setRefreshes] = useState(0);
  const latest = useRef(read);
  useEffect(() => {
    latest.current = read;
  });
  const { everyMs = EVERY_MS } = pace;
  const subjects = pace.subjects?.join(" ") ?? "";

  useEffect(() => {
    const ended = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let failures = 0;
    let shown: T | undefined;
    let isReading = false;
    let changes = 0;
    let pausesUntil = 0;

    async function load(): Promise<void> {
      clearTimeout(timer);
      if (document.visibilityState === "hidden" || isReading) return;
      isReading = true;
      const [began, changesBefore] = [performance.now(), changes];
      try {
        const value = await latest.current(ended.signal);
        if (ended.signal.aborted) return;
        // The same object: nothing has changed, so nothing is rendered.
        if (failures > 0 || shown === undefined || shown !== value) setState({ key, value });
        failures = 0;
        shown = value;
      } catch (error) {
        if (ended.signal.aborted) return;
        failures += 1;
        const problem = error instanceof Problem ? error : new Problem(String(error), 0, "unreachable");
        setState((old) => (old.key === key && old.value !== undefined ? { key, value: old.value, problem } : { key, problem }));
      } finally {
        isReading = false;
      }
      const now = performance.now();
      pausesUntil = now + Math.max(MIN_PAUSE_MS, PAUSE_FACTOR * (now - began));
      const slowMs = subjects && isConnected() ? Math.max(everyMs, CONNECTED_MS) : everyMs;
      // The value may lack what changed while it was read.
      schedule(changes !== changesBefore && failures === 0 ? pausesUntil - now : wait(slowMs, failures));
    }

    function schedule(ms: number): void {
      clearTimeout(timer);
      timer = setTimeout(() => void load(), ms);
    }

    function onChange(changed: ReadonlySet<string>): void {
      if (failures > 0 || !subjects.split(" ").some((subject) => changed.has(subject))) return;
      changes += 1;
      if (!isReading) schedule(Math.max(0, pausesUntil - performance.now()));
    }

    function onVisibility(): void {
      if (document.visibilityState === "visible") void load();
    }

    void load();
    document.addEventListener("visibilitychange", onVisibility);
    const stopListening = subjects ? listen(onChange) : undefined;
    return () => {
      ended.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisibility);
      stopListening?.();
    };
  }, [key, refreshes, everyMs, subjects]);

  const refresh = useCallback(() => setRefreshes((old) => old + 1), []);
  const isCurrent = state.key === key;
  return {
    value: state.value,
    problem: isCurrent ? state.problem : undefined,
    isLoading: !isCurrent || (state.value === undefined && state.problem === undefined),
    refresh,
  };
}

/** Return how long to wait: longer after each failure, with jitter so that pages don't poll in step. */
function wait(everyMs: number, failures: number): number {
  return Math.min(MAX_MS, everyMs * 2 ** failures) * (0.9 + 0.2 * Math.random());
}
