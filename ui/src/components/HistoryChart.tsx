/** Measurements of the last 24 hours, as a chart. */

import { useMemo } from "react";
import { read } from "../api";
import type { History, Listed } from "../types";
import { useLive } from "../useLive";
import { Sparkline } from "./Sparkline";

/** Central keeps one point a minute at most. */
const EVERY_MS = 60_000;
const POINTS = 96;

/** Return the last 24 hours of the fleet, of all queues or of one worker, by name. */
export function useHistory(kind: "fleet" | "queue" | "worker", name = ""): ReadonlyMap<string, History> {
  const live = useLive(
    `history ${kind} ${name}`,
    (signal) => read<Listed<History>>(`history/${kind}`, { name, most_points: POINTS }, signal),
    { everyMs: EVERY_MS },
  );
  return useMemo(() => new Map((live.value?.items ?? []).map((one) => [one.name, one])), [live.value]);
}

/** Draw one of the measured values; nothing while there are no measurements. */
export function HistoryChart({ history, value, label, max }: { history: History | undefined; value: string; label: string; max?: number }) {
  if (!history) return null;
  const series = { at: history.at, values: history.values[value] ?? [], spanS: history.span_s };
  return <Sparkline label={label} series={series} {...(max === undefined ? {} : { max })} />;
}
