/** What was measured in the last day, drawn. */

import { useMemo } from "react";
import { read } from "../api";
import type { History, Listed } from "../types";
import { useLive } from "../useLive";
import { Sparkline } from "./Sparkline";

/** A minute is the finest that is kept. */
const EVERY_MS = 60_000;
const POINTS = 96;

/** Return the last day of the fleet, of all queues or of one worker, by name. */
export function useHistory(kind: "fleet" | "queue" | "worker", name = ""): ReadonlyMap<string, History> {
  const live = useLive(
    `history ${kind} ${name}`,
    (signal) => read<Listed<History>>(`history/${kind}`, { name, most_points: POINTS }, signal),
    { everyMs: EVERY_MS },
  );
  return useMemo(() => new Map((live.value?.items ?? []).map((one) => [one.name, one])), [live.value]);
}

/** Draw one of the values; nothing where there is none yet. */
export function Drawn({ history, value, label, most }: { history: History | undefined; value: string; label: string; most?: number }) {
  if (!history) return null;
  const measured = { at: history.at, values: history.values[value] ?? [], spanS: history.span_s };
  return <Sparkline label={label} measured={measured} {...(most === undefined ? {} : { most })} />;
}
