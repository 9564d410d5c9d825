/** Which rows of a long list are in view. The height of a row is measured once it is rendered, and estimated before. */

/** The estimated height of a row in pixels: one line of text, and its padding. */
export const ESTIMATED_PX = 40;

/** Rows that are rendered above and below the view, so that fast scrolling shows no gap and the Tab key finds the next row. */
const OVERSCAN_ROWS = 8;

export interface View {
  /** The first and the last row to render; no row if the last comes before the first. */
  first: number;
  last: number;
}

/** Return where each row begins, in pixels, and as the last item where the last row ends. */
export function tops(count: number, heightOf: (row: number) => number | undefined): number[] {
  const all = [0];
  let top = 0;
  for (let row = 0; row < count; row += 1) all.push((top += heightOf(row) ?? ESTIMATED_PX));
  return all;
}

/** Return the row at this height; above all rows the first, below all rows the last. */
export function rowAt(px: number, all: readonly number[]): number {
  let [low, high] = [0, Math.max(0, all.length - 2)];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if ((all[middle] ?? Infinity) <= px) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Return the rows to render while *heightPx* from *topPx* on are in view. Only the first *loaded* rows can be rendered. */
export function inView(all: readonly number[], topPx: number, heightPx: number, loaded: number): View {
  return {
    first: Math.max(0, rowAt(topPx, all) - OVERSCAN_ROWS),
    last: Math.min(loaded - 1, rowAt(topPx + heightPx, all) + OVERSCAN_ROWS),
  };
}

/** A row, or a gap as high as the rows before row *before* that are not rendered. */
export type Piece = { row: number } | { gapPx: number; before: number };

/** Return what to render, in order: the rows in view, *extraRow* if given, and the gaps between them. */
export function pieces(all: readonly number[], view: View, extraRow: number | undefined): Piece[] {
  const rows = Array.from({ length: Math.max(0, view.last - view.first + 1) }, (_, at) => view.first + at);
  if (extraRow !== undefined && !rows.includes(extraRow)) rows.push(extraRow);
  rows.sort((one, other) => one - other);
  const result: Piece[] = [];
  let next = 0;
  for (const row of [...rows, all.length - 1]) {
    const gapPx = (all[row] ?? 0) - (all[next] ?? 0);
    if (gapPx > 0) result.push({ gapPx, before: row });
    if (row < all.length - 1) result.push({ row });
    next = row + 1;
  }
  return result;
}
