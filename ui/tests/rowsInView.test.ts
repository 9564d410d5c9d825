import { expect, test } from "vitest";
import { ESTIMATED_PX, inView, pieces, rowAt, tops } from "../src/rowsInView";

const estimated = tops(5000, () => undefined);

test("rows begin where those before them end, measured or estimated", () => {
  expect(tops(3, (row) => (row === 1 ? 100 : undefined))).toEqual([0, ESTIMATED_PX, ESTIMATED_PX + 100, 2 * ESTIMATED_PX + 100]);
  expect(tops(0, () => 1)).toEqual([0]);
});

test("the row at a height is found, also above and below all rows", () => {
  const all = tops(3, () => 10);
  expect([-5, 0, 9, 10, 29, 30, 1000].map((px) => rowAt(px, all))).toEqual([0, 0, 0, 1, 2, 2, 2]);
  expect(rowAt(7, [0])).toBe(0);
});

test("the number of rendered rows does not grow with the list", () => {
  for (const top of [0, 77_000, estimated.at(-1) ?? 0]) {
    const { first, last } = inView(estimated, top, 900, 5000);
    expect(last - first).toBeLessThan(60);
    expect(first).toBeGreaterThanOrEqual(0);
    expect(last).toBeLessThan(5000);
  }
});

test("rows that are not loaded are not rendered", () => {
  const view = inView(estimated, 100_000, 900, 250);
  expect(pieces(estimated, view, undefined)).toEqual([{ gapPx: 5000 * ESTIMATED_PX, before: 5000 }]);
});

test("gaps are as high as the rows that are not rendered", () => {
  const all = tops(10, () => 10);
  expect(pieces(all, { first: 3, last: 4 }, undefined)).toEqual([{ gapPx: 30, before: 3 }, { row: 3 }, { row: 4 }, { gapPx: 50, before: 10 }]);
  expect(pieces(all, { first: 0, last: 9 }, undefined)).toHaveLength(10);
  expect(pieces([0], { first: 0, last: -1 }, undefined)).toEqual([]);
});

test("one extra row is rendered once, wherever it is", () => {
  const all = tops(10, () => 10);
  expect(pieces(all, { first: 4, last: 4 }, 1)).toEqual([
    { gapPx: 10, before: 1 },
    { row: 1 },
    { gapPx: 20, before: 4 },
    { row: 4 },
    { gapPx: 50, before: 10 },
  ]);
  expect(pieces(all, { first: 4, last: 4 }, 4)).toEqual(pieces(all, { first: 4, last: 4 }, undefined));
});
