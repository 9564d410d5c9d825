/** A small picture of how a value went: its shape at a glance, its numbers for who asks or can't see it. */

import { Box } from "@chakra-ui/react";
import { words } from "../words";

const WIDTH = 120;
const HEIGHT = 24;

export interface Measured {
  /** When each point begins, in seconds since 1970. */
  at: readonly number[];
  values: readonly (number | null)[];
  /** What a point stands for, in seconds. */
  spanS: number;
}

/**
 * Return the lines through the points of the last *lastS* seconds, as SVG path data. Where nothing was measured there is a gap.
 * *most*: the value at the upper edge.
 */
export function lines({ at, values, spanS }: Measured, until: number, lastS: number, most: number): string {
  let last: number | undefined;
  return at
    .map((time, nth) => {
      const value = values[nth];
      if (value === null || value === undefined) return "";
      const x = (WIDTH * (time - (until - lastS))) / lastS;
      const y = HEIGHT - 1 - (HEIGHT - 2) * (most ? value / most : 0);
      const joins = last !== undefined && time - last <= 2.5 * spanS;
      last = time;
      return `${joins ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${joins ? "" : " h0.01"}`;
    })
    .join("");
}

export function Sparkline({ measured, label, most, lastS = 86_400 }: { measured: Measured; label: string; most?: number; lastS?: number }) {
  const known = measured.values.filter((value) => value !== null);
  if (!known.length) return null;
  const largest = Math.max(...known);
  const until = (measured.at[measured.at.length - 1] ?? 0) + measured.spanS;
  const told = words().measured(label, Math.min(...known), largest, known[known.length - 1] ?? 0);
  return (
    <Box aria-label={told} color="info.fg" role="img" title={told}>
      <svg aria-hidden height={HEIGHT} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH}>
        <path
          d={lines(measured, until, lastS, most ?? largest)}
          fill="none"
          stroke="currentColor"
          strokeLinecap="round"
          strokeWidth="1.5"
        />
      </svg>
    </Box>
  );
}
