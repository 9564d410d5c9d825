/** Facts that stay true: read, and read again when they change, or now and then, while the page is looked at. */

import { useCallback, useEffect, useRef, useState } from "react";
import { Problem } from "./api";
import { isHeard, listen, type Subject } from "./feed";

export interface Live<T> {
  value: T | undefined;
  /** Why the newest attempt failed; the last good value stays. */
  problem: Problem | undefined;
  isLoading: boolean;
  again: () => void;
}

export interface Pace {
  /** What it depends on: of whose changes the API tells. None: it is only read now and then. */
  of?: readonly Subject[];
  /** How often it is read while the API tells nothing. */
  everyMs?: number;
}

export const EVERY_MS = 5_000;
/** While the API tells of changes: time passes without any, and silent workers are known by it. */
export const HEARD_MS = 15_000;
const LONGEST_MS = 60_000;
/** A fleet in which something changes all the time is read no faster than this, and the slower the longer reading takes. */
const RESTS_MS = 1_000;
const RESTS_TIMES = 10;

/**
 * Read what *read* returns, and again as *pace* says, less often after failures, not at all while the page is hidden.
 * *key* names what is read: another key begins anew. Old values stay until newer ones are there: nothing flickers.
 */
export function useLive<T>(key: string, read: (signal: AbortSignal) => Promise<T>, pace: Pace = {}): Live<T> {
  const [state, setState] = useState<{ key: string; value?: T; problem?: Problem }>({ key });
  const [turn, setTurn] = useState(0);
  const latest = useRef(read);
  useEffect(() => {
    latest.current = read;
  });
  const { everyMs = EVERY_MS } = pace;
  const subjects = pace.of?.join(" ") ?? "";

  useEffect(() => {
    const ended = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let failures = 0;
    let shown: T | undefined;
    let isReading = false;
    let changes = 0;
    let restsUntil = 0;

    async function look(): Promise<void> {
      clearTimeout(timer);
      if (document.visibilityState === "hidden" || isReading) return;
      isReading = true;
      const [began, known] = [performance.now(), changes];
      try {
        const value = await latest.current(ended.signal);
        if (ended.signal.aborted) return;
        // The very same object: nothing has changed, and nothing need be drawn.
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
      restsUntil = now + Math.max(RESTS_MS, RESTS_TIMES * (now - began));
      const slowMs = subjects && isHeard() ? Math.max(everyMs, HEARD_MS) : everyMs;
      // What has changed meanwhile may not be in what we read.
      after(changes !== known && failures === 0 ? restsUntil - now : wait(slowMs, failures));
    }

    function after(ms: number): void {
      clearTimeout(timer);
      timer = setTimeout(() => void look(), ms);
    }

    function changed(told: ReadonlySet<string>): void {
      if (failures > 0 || !subjects.split(" ").some((subject) => told.has(subject))) return;
      changes += 1;
      if (!isReading) after(Math.max(0, restsUntil - performance.now()));
    }

    function seen(): void {
      if (document.visibilityState === "visible") void look();
    }

    void look();
    document.addEventListener("visibilitychange", seen);
    const deafen = subjects ? listen(changed) : undefined;
    return () => {
      ended.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
      deafen?.();
    };
  }, [key, turn, everyMs, subjects]);

  const again = useCallback(() => setTurn((old) => old + 1), []);
  const isOurs = state.key === key;
  return {
    value: state.value,
    problem: isOurs ? state.problem : undefined,
    isLoading: !isOurs || (state.value === undefined && state.problem === undefined),
    again,
  };
}

/** Return how long to wait: longer after each failure, and never in step with other pages. */
function wait(everyMs: number, failures: number): number {
  return Math.min(LONGEST_MS, everyMs * 2 ** failures) * (0.9 + 0.2 * Math.random());
}
