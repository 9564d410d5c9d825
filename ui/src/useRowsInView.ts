/** Draws of a long list only the rows in view: by their heights, at the place that the address names, keeping the focus. */

import { useEffect, useLayoutEffect, useMemo, useRef, useState, type FocusEvent, type RefObject, type UIEvent } from "react";
import { GUESSED_PX, inView, pieces, rowAt, tops, type Piece } from "./rowsInView";
import { useAddress } from "./useAddress";

/** Scrolled by less than this, what is drawn stays as it is: it reaches further than the view. */
const STEP_PX = 120;
/** Browsers scroll to whole pixels; rows begin in between. */
const ROUNDED_PX = 1;
/** Once scrolling rests for so long, the address says where. */
const REST_MS = 300;
/** An address may lead so far down: every row before has to be read on the way. */
const MOST_DOWN = 10_000;

export interface LongList {
  /** Names the list: of another one the first row is shown. */
  name: string;
  /** How many rows it has; undefined: nobody has counted. */
  total: number | undefined;
  isWhole: boolean;
  see: (first: number, last: number) => void;
}

interface Drawn {
  pieces: Piece[];
  /** What the scrolling box, the table and its body take. */
  scroller: object;
  table: object;
  body: object;
}

/** Return what to draw of *rows*: all of them, unless they are of a long list. */
export function useRowsInView<T>(rows: readonly T[], keyOf: (row: T) => string, long: LongList | undefined): Drawn {
  const address = useAddress();
  const [startsAt] = useState(() => (long ? Math.min(MOST_DOWN, Math.max(0, Math.floor(Number(address.get("at")) || 0))) : 0));
  const [scrolledPx, setScrolledPx] = useState(startsAt * GUESSED_PX);
  const [focused, setFocused] = useState<string>();
  const body = useRef<HTMLTableSectionElement>(null);
  const heights = useHeights(body, long !== undefined);

  const keys = useMemo(() => rows.map(keyOf), [rows, keyOf]);
  const count = !long || long.isWhole ? rows.length : Math.max(rows.length, long.total ?? 0);
  const all = useMemo(() => tops(count, (row) => heights.get(keys[row] ?? "")), [count, heights, keys]);
  const viewPx = globalThis.innerHeight; // the box is no higher
  const topPx = Math.min(scrolledPx, Math.max(0, (all.at(-1) ?? 0) - viewPx));
  const view = long ? inView(all, topPx, viewPx + STEP_PX, rows.length) : { first: 0, last: rows.length - 1 };

  const [first, last, see] = [rowAt(topPx, all), rowAt(topPx + viewPx, all), long?.see];
  useEffect(() => see?.(first, last), [see, first, last]);

  const place = usePlace(long?.name, startsAt, all, (row) => long !== undefined && (row < count || long.isWhole));
  const rest = useRest();

  if (!long) return { pieces: pieces(all, view, undefined), scroller: {}, table: {}, body: {} };
  const focusedRow = focused === undefined ? -1 : keys.indexOf(focused);
  return {
    pieces: pieces(all, view, focusedRow < 0 ? undefined : focusedRow),
    scroller: {
      ref: place.box,
      tabIndex: 0,
      maxH: "max(20rem, calc(100dvh - 14rem))",
      overflowAnchor: "none",
      overflowY: "auto",
      onScroll: (event: UIEvent<HTMLElement>) => {
        const { scrollTop } = event.currentTarget;
        setScrolledPx(Math.floor(scrollTop / STEP_PX) * STEP_PX);
        place.moved();
        rest(() => address.note({ at: scrollTop > 0 ? String(rowAt(scrollTop + ROUNDED_PX, all)) : null }));
      },
    },
    table: { "aria-rowcount": long.isWhole || long.total !== undefined ? count + 1 : -1 },
    body: {
      ref: body,
      // A row that holds the focus stays, wherever it is: a focus whose element goes is lost.
      onFocus: (event: FocusEvent<HTMLElement>) => setFocused(event.target.closest<HTMLElement>("[data-row]")?.dataset["row"]),
      onBlur: (event: FocusEvent<HTMLElement>) => (event.currentTarget.contains(event.relatedTarget) ? undefined : setFocused(undefined)),
    },
  };
}

/** Return how high the rows are that have been drawn, by their names. */
function useHeights(body: RefObject<HTMLTableSectionElement | null>, isLong: boolean): ReadonlyMap<string, number> {
  const [heights, setHeights] = useState<ReadonlyMap<string, number>>(new Map());
  useEffect(() => {
    if (!isLong || !body.current) return undefined;
    const observer = new ResizeObserver((entries) => setHeights((old) => measured(old, entries.map((entry) => entry.target as HTMLElement))));
    for (const row of body.current.querySelectorAll("[data-row]")) observer.observe(row);
    return () => observer.disconnect();
  });
  return heights;
}

/** Return *old* with the heights of these rows; *old* itself if they are as before. */
function measured(old: ReadonlyMap<string, number>, rows: readonly HTMLElement[]): ReadonlyMap<string, number> {
  const news = rows
    .map((row): [string, number] => [row.dataset["row"] ?? "", row.getBoundingClientRect().height])
    .filter(([name, px]) => px > 0 && old.get(name) !== px);
  return news.length ? new Map([...old, ...news]) : old;
}

interface Place {
  box: RefObject<HTMLDivElement | null>;
  /** Say that somebody has scrolled. */
  moved: () => void;
}

/**
 * Scroll to where the address said, once that is there, and to the top of every other list. The row at the top stays there
 * when rows before it turn out to be higher than guessed; a browser that does so by itself would take its own choice of row.
 */
function usePlace(name: string | undefined, startsAt: number, all: readonly number[], isThere: (row: number) => boolean): Place {
  const box = useRef<HTMLDivElement>(null);
  const kept = useRef({ name, row: startsAt, px: 0 });
  useLayoutEffect(() => {
    if (!box.current) return;
    if (kept.current.name !== name) {
      kept.current = { name, row: 0, px: 0 };
      box.current.scrollTop = 0;
    }
    const px = isThere(kept.current.row) ? (all[kept.current.row] ?? all.at(-1) ?? 0) : kept.current.px;
    if (px === kept.current.px) return;
    box.current.scrollTop += px - kept.current.px;
    kept.current.px = px;
  });
  const moved = (): void => {
    if (!box.current || !isThere(kept.current.row)) return;
    const row = rowAt(box.current.scrollTop + ROUNDED_PX, all);
    kept.current = { name, row, px: all[row] ?? 0 };
  };
  return { box, moved };
}

/** Return a function that does its last wish once no other has come for a while, and the address is still the same. */
function useRest(): (wish: () => void) => void {
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const { set } = useAddress(); // another one with each address
  useEffect(() => () => clearTimeout(timer.current), [set]);
  return (wish) => {
    clearTimeout(timer.current);
    timer.current = setTimeout(wish, REST_MS);
  };
}
