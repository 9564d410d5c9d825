/** A small line chart of one value over time. Its numbers are in its label, for screen readers and as a tooltip. */

import { Box } from "@chakra-ui/react";
import { words } from "../words";

const WIDTH = 120;
const HEIGHT = 24;

export interface Series {
  /** When each point begins, in seconds since 1970. */
  at: readonly number[];
  /** null: not measured. */
  values: readonly (number | null)[];
  /** How long a point lasts, in seconds. */
  spanS: number;
}

/**
 * Return the line through the points of the last *lastS* seconds, as SVG path data. It has a gap where nothing was measured.
 * *max*: the value at the upper edge.
 */
export function linePath({ at, values, spanS }: Series, until: number, lastS: number, max: number): string {
  let last: number | undefined;
  return at
    .map((time, nth) => {
      const value = values[nth];
      if (value === null || value === undefined) return "";
      const x = (WIDTH * (time - (until - lastS))) / lastS;
      const y = HEIGHT - 1 - (HEIGHT - 2) * (max ? value / max : 0);
      const isJoined = last !== undefined && time - last <= 2.5 * spanS;
      last = time;
      return `${isJoined ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${isJoined ? "" : " h0.01"}`;
    })
    .join("");
}

export function Sparkline({ series, label, max, lastS = 86_400 }: { series: Series; label: string; max?: number; lastS?: number }) {
  const known = series.values.filter((value) => value !== null);
  if (!known.length) return null;
  const largest = Math.max(...known);
  const until = (series.at[series.at.length - 1] ?? 0) + series.spanS;
  const description = words().measured(label, Math.min(...known), largest, known[known.length - 1] ?? 0);
  return (
    <Box aria-label={description} color="info.fg" role="img" title={description}>
      <svg aria-hidden height={HEIGHT} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH}>
        <path
          d={linePath(series, until, lastS, max ?? largest)}
          fill="none"
          stroke="currentColor"
          strokeLinecap="round"
          strokeWidth="1.5"
        />
      </svg>
    </Box>
  );
}
