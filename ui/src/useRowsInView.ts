/** Renders only the rows of a long list that are in view. Keeps the scroll position in the address, and keeps the focus. */

import { useEffect, useLayoutEffect, useMemo, useRef, useState, type FocusEvent, type RefObject, type UIEvent } from "react";
import { ESTIMATED_PX, inView, pieces, rowAt, tops, type Piece } from "./rowsInView";
import { useAddress } from "./useAddress";

/** Scrolling by less than this renders nothing: rows beyond the view are already rendered. */
const STEP_PX = 120;
/** Browsers scroll to whole pixels; rows can begin between two pixels. */
const ROUNDED_PX = 1;
/** How long scrolling must rest before the position is written to the address. */
const REST_MS = 300;
/** The last row that an address may lead to: every row before it has to be read. */
const MAX_START = 10_000;

export interface LongList {
  /** Identifies the list: for another one the view starts at the first row. */
  name: string;
  /** How many rows it has; undefined: unknown. */
  total: number | undefined;
  isComplete: boolean;
  onView: (first: number, last: number) => void;
}

interface VisibleRows {
  pieces: Piece[];
  /** Props of the scrolling box, the table and its body. */
  scroller: object;
  table: object;
  body: object;
}

/** Return what to render of *rows*: all of them, unless *long* is given. */
export function useRowsInView<T>(rows: readonly T[], keyOf: (row: T) => string, long: LongList | undefined): VisibleRows {
  const address = useAddress();
  const [startsAt] = useState(() => (long ? Math.min(MAX_START, Math.max(0, Math.floor(Number(address.get("at")) || 0))) : 0));
  const [scrolledPx, setScrolledPx] = useState(startsAt * ESTIMATED_PX);
  const [focused, setFocused] = useState<string>();
  const body = useRef<HTMLTableSectionElement>(null);
  const heights = useHeights(body, long !== undefined);

  const keys = useMemo(() => rows.map(keyOf), [rows, keyOf]);
  const count = !long || long.isComplete ? rows.length : Math.max(rows.length, long.total ?? 0);
  const all = useMemo(() => tops(count, (row) => heights.get(keys[row] ?? "")), [count, heights, keys]);
  const viewPx = globalThis.innerHeight; // the box is not higher
  const topPx = Math.min(scrolledPx, Math.max(0, (all.at(-1) ?? 0) - viewPx));
  const view = long ? inView(all, topPx, viewPx + STEP_PX, rows.length) : { first: 0, last: rows.length - 1 };

  const [first, last, onView] = [rowAt(topPx, all), rowAt(topPx + viewPx, all), long?.onView];
  useEffect(() => onView?.(first, last), [onView, first, last]);

  const position = useScrollPosition(long?.name, startsAt, all, (row) => long !== undefined && (row < count || long.isComplete));
  const debounce = useDebounce();

  if (!long) return { pieces: pieces(all, view, undefined), scroller: {}, table: {}, body: {} };
  const focusedRow = focused === undefined ? -1 : keys.indexOf(focused);
  return {
    pieces: pieces(all, view, focusedRow < 0 ? undefined : focusedRow),
    scroller: {
      ref: position.box,
      tabIndex: 0,
      maxH: "max(20rem, calc(100dvh - 14rem))",
      overflowAnchor: "none",
      overflowY: "auto",
      onScroll: (event: UIEvent<HTMLElement>) => {
        const { scrollTop } = event.currentTarget;
        setScrolledPx(Math.floor(scrollTop / STEP_PX) * STEP_PX);
        position.onScrolled();
        debounce(() => address.replaceSilently({ at: scrollTop > 0 ? String(rowAt(scrollTop + ROUNDED_PX, all)) : null }));
      },
    },
    table: { "aria-rowcount": long.isComplete || long.total !== undefined ? count + 1 : -1 },
    body: {
      ref: body,
      // The row with the focus stays rendered: removing its element would lose the focus.
      onFocus: (event: FocusEvent<HTMLElement>) => setFocused(event.target.closest<HTMLElement>("[data-row]")?.dataset["row"]),
      onBlur: (event: FocusEvent<HTMLElement>) => (event.currentTarget.contains(event.relatedTarget) ? undefined : setFocused(undefined)),
    },
  };
}

/** Return the heights of the rows that have been rendered, by their keys. */
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

interface ScrollPosition {
  box: RefObject<HTMLDivElement | null>;
  /** Report that the user has scrolled. */
  onScrolled: () => void;
}

/**
 * Scroll to the row that the address names once it is loaded, and to the top for every other list. The row at the top stays there
 * when rows before it turn out to be higher than estimated: the browser's own scroll anchoring would pick another row.
 */
function useScrollPosition(name: string | undefined, startsAt: number, all: readonly number[], isLoaded: (row: number) => boolean): ScrollPosition {
  const box = useRef<HTMLDivElement>(null);
  const anchor = useRef({ name, row: startsAt, px: 0 });
  useLayoutEffect(() => {
    if (!box.current) return;
    if (anchor.current.name !== name) {
      anchor.current = { name, row: 0, px: 0 };
      box.current.scrollTop = 0;
    }
    const px = isLoaded(anchor.current.row) ? (all[anchor.current.row] ?? all.at(-1) ?? 0) : anchor.current.px;
    if (px === anchor.current.px) return;
    box.current.scrollTop += px - anchor.current.px;
    anchor.current.px = px;
  });
  const onScrolled = (): void => {
    if (!box.current || !isLoaded(anchor.current.row)) return;
    const row = rowAt(box.current.scrollTop + ROUNDED_PX, all);
    anchor.current = { name, row, px: all[row] ?? 0 };
  };
  return { box, onScrolled };
}

/** Return a debounced call: only the last one runs, once no other follows for a while and if the address is still the same. */
function useDebounce(): (work: () => void) => void {
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const { set } = useAddress(); // a new function for each address
  useEffect(() => () => clearTimeout(timer.current), [set]);
  return (work) => {
    clearTimeout(timer.current);
    timer.current = setTimeout(work, REST_MS);
  };
}
