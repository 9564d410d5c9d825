/** Long lists, page behind page: what is in view stays true; what lies behind is read before it comes into view. */

import { useCallback, useMemo, useState } from "react";
import { read, type Problem, type Query } from "./api";
import type { Subject } from "./feed";
import type { Listed } from "./types";
import { useLive } from "./useLive";

export const PAGE_ROWS = 250;
/** So many rows before the last one that is there, the next page is asked for: some screens. */
const AHEAD_ROWS = 100;
/** Lists that are remembered: a person goes to and fro between a few. */
const MOST_KEPT = 8;

export interface Endless<T> {
  /** Names what is listed: another name, another list. */
  name: string;
  /** As far as they have been read; undefined: not at all yet. */
  rows: readonly T[] | undefined;
  /** Whether nothing lies behind. */
  isWhole: boolean;
  problem: Problem | undefined;
  again: () => void;
  /** Say which rows are in view, the first and the last. */
  see: (first: number, last: number) => void;
}

interface Book<T> {
  name: string;
  pages: readonly Listed<T>[];
}

interface Span {
  first: number;
  last: number;
}

const START: Span = { first: 0, last: 0 };

/** By name. Not in a component: Airflow's page makes those anew whenever its path changes. */
const kept = new Map<string, Book<unknown>>();

/**
 * Read the list at *path*. A page begins where the page before it ended when it was read, so each row is there once;
 * a row that moved meanwhile stands where it was seen first.
 */
export function useEndless<T>(path: string, query: Query, keyOf: (row: T) => string, of: readonly Subject[]): Endless<T> {
  const name = `${path} ${JSON.stringify(query)}`;
  const [seen, setSeen] = useState({ name, ...START });
  const span = seen.name === name ? seen : START;
  const live = useLive(`${name} ${span.first}-${span.last}`, (signal) => leaf<T>(name, path, query, span, signal), { of });
  // Of another list, until ours is there: nothing flickers.
  const book = live.value?.name === name ? live.value : ((kept.get(name) as Book<T> | undefined) ?? live.value);
  const { rows, starts } = useMemo(() => bound(book?.pages ?? [], keyOf), [book, keyOf]);
  const isWhole = book !== undefined && book.pages.at(-1)?.next === null;

  const see = useCallback(
    (first: number, last: number) => {
      const end = isWhole ? Math.max(0, starts.length - 1) : Infinity;
      const next = { name, first: Math.min(end, pageOf(first, starts, rows.length)), last: Math.min(end, pageOf(last + AHEAD_ROWS, starts, rows.length)) };
      setSeen((old) => (old.name === name && old.first === next.first && old.last === next.last ? old : next));
    },
    [name, isWhole, starts, rows.length],
  );
  return { name, rows: book && rows, isWhole, problem: live.problem, again: live.again, see };
}

/** Read the pages of *span*, and those before it that were never read; return the very same book if nothing has changed. */
async function leaf<T>(name: string, path: string, query: Query, span: Span, signal: AbortSignal): Promise<Book<T>> {
  let book = (kept.get(name) as Book<T> | undefined) ?? { name, pages: [] };
  for (let at = Math.min(span.first, book.pages.length); at <= span.last; at += 1) {
    const before = book.pages[at - 1];
    if (at > 0 && !before?.next) break;
    const page = await read<Listed<T>>(path, { ...query, limit: PAGE_ROWS, after: before?.next }, signal);
    if (page !== book.pages[at]) book = { name, pages: replaced(book.pages, at, page) };
    keep(book);
  }
  return book;
}

/** Return *pages* with this one in its place; behind a last one there is nothing. */
export function replaced<T>(pages: readonly Listed<T>[], at: number, page: Listed<T>): readonly Listed<T>[] {
  return [...pages.slice(0, at), page, ...(page.next === null ? [] : pages.slice(at + 1))];
}

/** Return the rows of all pages, each once, and where each page begins. */
export function bound<T>(pages: readonly Listed<T>[], keyOf: (row: T) => string): { rows: T[]; starts: number[] } {
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

/** Return the page that a row is on, or will be. */
export function pageOf(row: number, starts: readonly number[], count: number): number {
  if (row >= count) return starts.length + Math.floor((row - count) / PAGE_ROWS);
  return Math.max(0, starts.findLastIndex((start) => start <= row));
}

function keep(book: Book<unknown>): void {
  kept.delete(book.name);
  kept.set(book.name, book);
  for (const oldest of kept.keys()) {
    if (kept.size <= MOST_KEPT) break;
    kept.delete(oldest);
  }
}

/** Forget all lists; for tests. */
export function close(): void {
  kept.clear();
}
