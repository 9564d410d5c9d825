/** Facts that stay true: read, and read again while the page is looked at. */

import { useCallback, useEffect, useRef, useState } from "react";
import { Problem } from "./api";

export interface Live<T> {
  value: T | undefined;
  /** Why the newest attempt failed; the last good value stays. */
  problem: Problem | undefined;
  isLoading: boolean;
  again: () => void;
}

export const EVERY_MS = 5_000;
const LONGEST_MS = 60_000;

/**
 * Read what *read* returns, every few seconds, less often after failures, not at all while the page is hidden.
 * *key* names what is read: another key begins anew. Old values stay until newer ones are there: nothing flickers.
 */
export function useLive<T>(key: string, read: (signal: AbortSignal) => Promise<T>, everyMs = EVERY_MS): Live<T> {
  const [state, setState] = useState<{ key: string; value?: T; problem?: Problem }>({ key });
  const [turn, setTurn] = useState(0);
  const latest = useRef(read);
  useEffect(() => {
    latest.current = read;
  });

  useEffect(() => {
    const ended = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let failures = 0;
    let shown: T | undefined;

    async function look(): Promise<void> {
      clearTimeout(timer);
      if (document.visibilityState === "hidden") return;
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
      }
      timer = setTimeout(() => void look(), wait(everyMs, failures));
    }

    function seen(): void {
      if (document.visibilityState === "visible") void look();
    }

    void look();
    document.addEventListener("visibilitychange", seen);
    return () => {
      ended.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [key, turn, everyMs]);

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
