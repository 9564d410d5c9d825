import { act, renderHook } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { forget } from "../src/api";
import { bound, close, pageOf, PAGE_ROWS, replaced, useEndless } from "../src/useEndless";

interface Row {
  key: string;
}

const keyOf = (row: Row): string => row.key;
const asked: string[] = [];
let fleet: string[] = [];

/** The API: `after` names the last row of the page before. */
function answer(url: string): Promise<Response> {
  const query = new URL(url).searchParams;
  asked.push(query.get("after") ?? "");
  const begin = fleet.indexOf(query.get("after") ?? "") + 1;
  const items = fleet.slice(begin, begin + PAGE_ROWS).map((key) => ({ key }));
  const next = begin + PAGE_ROWS < fleet.length ? items.at(-1)?.key : null;
  return Promise.resolve(new Response(JSON.stringify({ items, next: next ?? null })));
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("fetch", answer);
  forget();
  close();
  asked.length = 0;
  fleet = Array.from({ length: 1000 }, (_, at) => `w${String(at).padStart(4, "0")}`);
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function pass(ms: number): Promise<void> {
  await act(() => vi.advanceTimersByTimeAsync(ms));
}

test("a page is read before its first row comes into view, and not earlier", async () => {
  const list = renderHook(() => useEndless<Row>("workers", {}, keyOf, []));
  await pass(0);
  expect(list.result.current.rows).toHaveLength(250);
  act(() => list.result.current.see(0, 20));
  await pass(0);
  expect(asked).toEqual([""]);
  act(() => list.result.current.see(140, 160));
  await pass(0);
  expect(list.result.current.rows).toHaveLength(500);
  expect(list.result.current.isWhole).toBe(false);
});

test("who jumps to the end has all that comes before, each row once", async () => {
  const list = renderHook(() => useEndless<Row>("workers", {}, keyOf, []));
  await pass(0);
  act(() => list.result.current.see(980, 999));
  await pass(0);
  expect(list.result.current.rows?.map(keyOf, [])).toEqual(fleet);
  expect(list.result.current.isWhole).toBe(true);
});

test("what is in view stays true, and nothing else is read again", async () => {
  const list = renderHook(() => useEndless<Row>("workers", {}, keyOf, []));
  await pass(0);
  act(() => list.result.current.see(980, 999));
  await pass(0);
  asked.length = 0;
  fleet = fleet.filter((key) => key !== "w0990");
  await pass(6000);
  expect(list.result.current.rows).toHaveLength(999);
  expect(asked).toEqual(["w0749"]);
});

test("who comes back finds the list as it was, at once", async () => {
  const before = renderHook(() => useEndless<Row>("workers", {}, keyOf, []));
  await pass(0);
  before.unmount();
  const after = renderHook(() => useEndless<Row>("workers", {}, keyOf, []));
  expect(after.result.current.rows).toHaveLength(250);
  await pass(0);
});

test("another filter is another list, from its first row on", async () => {
  const list = renderHook(({ text }) => useEndless<Row>("workers", { text }, keyOf, []), { initialProps: { text: "" } });
  await pass(0);
  act(() => list.result.current.see(980, 999));
  await pass(0);
  fleet = ["w0001"];
  list.rerender({ text: "0001" });
  await pass(0);
  expect(list.result.current.rows).toEqual([{ key: "w0001" }]);
});

test("a row that moved to another page meanwhile is there once", () => {
  const [a, b, c] = [{ key: "a" }, { key: "b" }, { key: "c" }];
  expect(bound([{ items: [a, b], next: "b" }, { items: [b, c], next: null }], keyOf)).toEqual({ rows: [a, b, c], starts: [0, 2] });
});

test("behind a page that has become the last there is nothing", () => {
  const pages = ["a", "b", "c"].map((key, at) => ({ items: [{ key }], next: at < 2 ? key : null }));
  expect(replaced(pages, 1, { items: [], next: null })).toHaveLength(2);
  expect(replaced(pages, 1, { items: [], next: "x" })).toHaveLength(3);
});

test("the page of a row is known, or where it will be", () => {
  expect([0, 249, 250, 499].map((row) => pageOf(row, [0, 250], 500))).toEqual([0, 0, 1, 1]);
  expect(pageOf(500, [0, 250], 500)).toBe(2);
  expect(pageOf(4999, [0, 250], 500)).toBe(19);
  expect(pageOf(0, [], 0)).toBe(0);
});
