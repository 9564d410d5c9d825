import { act, renderHook } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { clearCache } from "../src/api";
import { joinPages, clearLists, pageOf, PAGE_ROWS, replacePage, usePagedList } from "../src/usePagedList";

interface Row {
  key: string;
}

const keyOf = (row: Row): string => row.key;
const requested: string[] = [];
let fleet: string[] = [];

/** The API: `after` names the last row of the page before. */
function answer(url: string): Promise<Response> {
  const query = new URL(url).searchParams;
  requested.push(query.get("after") ?? "");
  const begin = fleet.indexOf(query.get("after") ?? "") + 1;
  const items = fleet.slice(begin, begin + PAGE_ROWS).map((key) => ({ key }));
  const next = begin + PAGE_ROWS < fleet.length ? items.at(-1)?.key : null;
  return Promise.resolve(new Response(JSON.stringify({ items, next: next ?? null })));
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("fetch", answer);
  clearCache();
  clearLists();
  requested.length = 0;
  fleet = Array.from({ length: 1000 }, (_, at) => `w${String(at).padStart(4, "0")}`);
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function pass(ms: number): Promise<void> {
  await act(() => vi.advanceTimersByTimeAsync(ms));
}

test("a page is read shortly before its first row comes into view", async () => {
  const list = renderHook(() => usePagedList<Row>("workers", {}, keyOf, []));
  await pass(0);
  expect(list.result.current.rows).toHaveLength(250);
  act(() => list.result.current.onView(0, 20));
  await pass(0);
  expect(requested).toEqual([""]);
  act(() => list.result.current.onView(140, 160));
  await pass(0);
  expect(list.result.current.rows).toHaveLength(500);
  expect(list.result.current.isComplete).toBe(false);
});

test("a jump to the end loads all rows before it, each once", async () => {
  const list = renderHook(() => usePagedList<Row>("workers", {}, keyOf, []));
  await pass(0);
  act(() => list.result.current.onView(980, 999));
  await pass(0);
  expect(list.result.current.rows?.map(keyOf, [])).toEqual(fleet);
  expect(list.result.current.isComplete).toBe(true);
});

test("only the pages in view are refreshed", async () => {
  const list = renderHook(() => usePagedList<Row>("workers", {}, keyOf, []));
  await pass(0);
  act(() => list.result.current.onView(980, 999));
  await pass(0);
  requested.length = 0;
  fleet = fleet.filter((key) => key !== "w0990");
  await pass(6000);
  expect(list.result.current.rows).toHaveLength(999);
  expect(requested).toEqual(["w0749"]);
});

test("a list that is opened again shows its rows at once", async () => {
  const before = renderHook(() => usePagedList<Row>("workers", {}, keyOf, []));
  await pass(0);
  before.unmount();
  const after = renderHook(() => usePagedList<Row>("workers", {}, keyOf, []));
  expect(after.result.current.rows).toHaveLength(250);
  await pass(0);
});

test("another filter is another list and starts at its first row", async () => {
  const list = renderHook(({ text }) => usePagedList<Row>("workers", { text }, keyOf, []), { initialProps: { text: "" } });
  await pass(0);
  act(() => list.result.current.onView(980, 999));
  await pass(0);
  fleet = ["w0001"];
  list.rerender({ text: "0001" });
  await pass(0);
  expect(list.result.current.rows).toEqual([{ key: "w0001" }]);
});

test("a row that moved to another page appears once", () => {
  const [a, b, c] = [{ key: "a" }, { key: "b" }, { key: "c" }];
  expect(joinPages([{ items: [a, b], next: "b" }, { items: [b, c], next: null }], keyOf)).toEqual({ rows: [a, b, c], starts: [0, 2] });
});

test("pages after the last one are dropped", () => {
  const pages = ["a", "b", "c"].map((key, at) => ({ items: [{ key }], next: at < 2 ? key : null }));
  expect(replacePage(pages, 1, { items: [], next: null })).toHaveLength(2);
  expect(replacePage(pages, 1, { items: [], next: "x" })).toHaveLength(3);
});

test("the page of a row is found, also of a row that is not loaded yet", () => {
  expect([0, 249, 250, 499].map((row) => pageOf(row, [0, 250], 500))).toEqual([0, 0, 1, 1]);
  expect(pageOf(500, [0, 250], 500)).toBe(2);
  expect(pageOf(4999, [0, 250], 500)).toBe(19);
  expect(pageOf(0, [], 0)).toBe(0);
});
