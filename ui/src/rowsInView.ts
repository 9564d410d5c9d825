/** Which rows of a long list are in view. Heights are measured once a row is drawn, and guessed before. */

/** What a row is taken to be high before any was drawn, in pixels: one line of text, and its padding. */
export const GUESSED_PX = 40;

/** Rows that are drawn above and below what is in view: fast scrolling shows no gap, and the Tab key finds the next row. */
const BESIDE_ROWS = 8;

export interface View {
  /** The first and the last row to draw; none if the last comes before the first. */
  first: number;
  last: number;
}

/** Return where each row begins, and behind them where the last one ends. */
export function tops(count: number, heightOf: (row: number) => number | undefined): number[] {
  const all = [0];
  let top = 0;
  for (let row = 0; row < count; row += 1) all.push((top += heightOf(row) ?? GUESSED_PX));
  return all;
}

/** Return the row at this height; above and below all rows: the first and the last. */
export function rowAt(px: number, all: readonly number[]): number {
  let [low, high] = [0, Math.max(0, all.length - 2)];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if ((all[middle] ?? Infinity) <= px) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Return the rows to draw of *drawable* ones (from the first on) while *heightPx* from *topPx* on are in view. */
export function inView(all: readonly number[], topPx: number, heightPx: number, drawable: number): View {
  return {
    first: Math.max(0, rowAt(topPx, all) - BESIDE_ROWS),
    last: Math.min(drawable - 1, rowAt(topPx + heightPx, all) + BESIDE_ROWS),
  };
}

/** A row, or a gap as high as the rows that are not drawn before another one. */
export type Piece = { row: number } | { gapPx: number; before: number };

/** Return what to draw, in order: the rows in view, another one if there is one, and the gaps between them. */
export function pieces(all: readonly number[], view: View, alsoDrawn: number | undefined): Piece[] {
  const rows = Array.from({ length: Math.max(0, view.last - view.first + 1) }, (_, at) => view.first + at);
  if (alsoDrawn !== undefined && !rows.includes(alsoDrawn)) rows.push(alsoDrawn);
  rows.sort((one, other) => one - other);
  const told: Piece[] = [];
  let next = 0;
  for (const row of [...rows, all.length - 1]) {
    const gapPx = (all[row] ?? 0) - (all[next] ?? 0);
    if (gapPx > 0) told.push({ gapPx, before: row });
    if (row < all.length - 1) told.push({ row });
    next = row + 1;
  }
  return told;
}
