/** Long lists, read page by page: pages in view are refreshed, and the next page is read before it comes into view. */

import { useCallback, useMemo, useState } from "react";
import { read, type Problem, type Query } from "./api";
import type { Subject } from "./feed";
import type { Listed } from "./types";
import { useLive } from "./useLive";

export const PAGE_ROWS = 250;
/** The next page is read when the view is this close to the last loaded row: a few screens. */
const AHEAD_ROWS = 100;
/** How many lists are cached: users switch between a few. */
const MAX_CACHED = 8;

export interface PagedList<T> {
  /** Identifies the list: its path and query. */
  name: string;
  /** The rows loaded so far; undefined: none yet. */
  rows: readonly T[] | undefined;
  /** Whether all rows are loaded. */
  isComplete: boolean;
  problem: Problem | undefined;
  refresh: () => void;
  /** Report which rows are in view, the first and the last. */
  onView: (first: number, last: number) => void;
}

interface CachedList<T> {
  name: string;
  pages: readonly Listed<T>[];
}

interface Span {
  first: number;
  last: number;
}

const START: Span = { first: 0, last: 0 };

/** By name. Not in a component: Airflow mounts our page again whenever its path changes. */
const cache = new Map<string, CachedList<unknown>>();

/**
 * Read the list at *path*. A page begins where the page before it ended when it was read. A row that moved meanwhile stays
 * where it was read first, so each row appears once.
 */
export function usePagedList<T>(path: string, query: Query, keyOf: (row: T) => string, subjects: readonly Subject[]): PagedList<T> {
  const name = `${path} ${JSON.stringify(query)}`;
  const [inView, setInView] = useState({ name, ...START });
  const span = inView.name === name ? inView : START;
  const live = useLive(`${name} ${span.first}-${span.last}`, (signal) => readPages<T>(name, path, query, span, signal), { subjects });
  // Until this list is read, the previous one stays: nothing flickers.
  const list = live.value?.name === name ? live.value : ((cache.get(name) as CachedList<T> | undefined) ?? live.value);
  const { rows, starts } = useMemo(() => joinPages(list?.pages ?? [], keyOf), [list, keyOf]);
  const isComplete = list !== undefined && list.pages.at(-1)?.next === null;

  const onView = useCallback(
    (first: number, last: number) => {
      const end = isComplete ? Math.max(0, starts.length - 1) : Infinity;
      const next = { name, first: Math.min(end, pageOf(first, starts, rows.length)), last: Math.min(end, pageOf(last + AHEAD_ROWS, starts, rows.length)) };
      setInView((old) => (old.name === name && old.first === next.first && old.last === next.last ? old : next));
    },
    [name, isComplete, starts, rows.length],
  );
  return { name, rows: list && rows, isComplete, problem: live.problem, refresh: live.refresh, onView };
}

/** Read the pages of *span*, and those before it that were never read; return the same object if nothing has changed. */
async function readPages<T>(name: string, path: string, query: Query, span: Span, signal: AbortSignal): Promise<CachedList<T>> {
  let list = (cache.get(name) as CachedList<T> | undefined) ?? { name, pages: [] };
  for (let at = Math.min(span.first, list.pages.length); at <= span.last; at += 1) {
    const before = list.pages[at - 1];
    if (at > 0 && !before?.next) break;
    const page = await read<Listed<T>>(path, { ...query, limit: PAGE_ROWS, after: before?.next }, signal);
    if (page !== list.pages[at]) list = { name, pages: replacePage(list.pages, at, page) };
    store(list);
  }
  return list;
}

/** Return *pages* with *page* at position *at*. If it is the last one, later pages are dropped. */
export function replacePage<T>(pages: readonly Listed<T>[], at: number, page: Listed<T>): readonly Listed<T>[] {
  return [...pages.slice(0, at), page, ...(page.next === null ? [] : pages.slice(at + 1))];
}

/** Return the rows of all pages, each once, and at which row each page begins. */
export function joinPages<T>(pages: readonly Listed<T>[], keyOf: (row: T) => string): { rows: T[]; starts: number[] } {
  const known = new Set<string>();
  const rows: T[] = [];
  const starts: number[] = [];
  for (const page of pages) {
    starts.push(rows.length);
    for (const row of page.items) {
      const key = keyOf(row);
      if (!known.has(key)) rows.push(row);
      known.add(key);
    }
  }
  return { rows, starts };
}

/** Return the page that a row is on, or will be on once it is loaded. */
export function pageOf(row: number, starts: readonly number[], count: number): number {
  if (row >= count) return starts.length + Math.floor((row - count) / PAGE_ROWS);
  return Math.max(0, starts.findLastIndex((start) => start <= row));
}

function store(list: CachedList<unknown>): void {
  cache.delete(list.name);
  cache.set(list.name, list);
  for (const oldest of cache.keys()) {
    if (cache.size <= MAX_CACHED) break;
    cache.delete(oldest);
  }
}

/** Forget all lists; for tests. */
export function clearLists(): void {
  cache.clear();
}
