import { act, renderHook } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { isConnected } from "../src/feed";
import { useLive } from "../src/useLive";

/** An EventSource that the test controls. */
class Stream extends EventTarget {
  static readonly CLOSED = 2;
  static opened: Stream[] = [];
  readyState = 1;

  constructor(readonly url: string) {
    super();
    Stream.opened.push(this);
  }

  say(event: string, data = ""): void {
    this.dispatchEvent(new MessageEvent(event, { data }));
  }

  refuse(): void {
    this.readyState = Stream.CLOSED;
    this.dispatchEvent(new Event("error"));
  }

  close(): void {
    this.readyState = Stream.CLOSED;
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("EventSource", Stream);
  Stream.opened = [];
});
afterEach(async () => {
  await pass(10_000); // the stream stays open for a moment
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function pass(ms: number): Promise<void> {
  await act(() => vi.advanceTimersByTimeAsync(ms));
}

/** Return how often the value was read, its stream, and a function that unmounts it. */
async function shown(): Promise<{ count: () => number; stream: Stream; unmount: () => void }> {
  let count = 0;
  const { unmount } = renderHook(() => useLive("x", () => Promise.resolve(++count), { subjects: ["jobs", "workers"] }));
  await pass(0);
  const stream = Stream.opened.at(-1);
  if (!stream) throw new Error("no stream was opened");
  return { count: () => count, stream, unmount };
}

test("a change is read at once, other subjects are ignored, and a burst is read once a second at most", async () => {
  const { count, stream, unmount } = await shown();
  expect(stream.url).toMatch(/remote\/ui\/v1\/live$/);
  stream.say("beat");
  await pass(2_000);
  stream.say("changed", "audit");
  await pass(2_000);
  expect(count()).toBe(1);
  stream.say("changed", "jobs audit");
  await pass(0);
  expect(count()).toBe(2);
  for (let n = 0; n < 10; n += 1) {
    stream.say("changed", "jobs");
    await pass(100);
  }
  expect(count()).toBe(3);
  unmount();
});

test("polling is slow while the stream is connected, and normal without it", async () => {
  const { count, stream, unmount } = await shown();
  stream.say("beat");
  await pass(6_000); // the first wait began before the stream had sent anything
  const before = count();
  for (let n = 0; n < 3; n += 1) {
    stream.say("beat");
    await pass(10_000);
  }
  expect(count() - before).toBeLessThanOrEqual(2);
  const silent = count();
  await pass(60_000);
  expect(isConnected()).toBe(false);
  expect(count() - silent).toBeGreaterThanOrEqual(7);
  unmount();
});

test("one stream serves all listeners and closes after the last one", async () => {
  const one = await shown();
  const other = renderHook(() => useLive("y", () => Promise.resolve(1), { subjects: ["audit"] }));
  await pass(0);
  expect(Stream.opened).toHaveLength(1);
  one.unmount();
  await pass(5_000);
  expect(one.stream.readyState).toBe(1);
  other.unmount();
  await pass(5_000);
  expect(one.stream.readyState).toBe(Stream.CLOSED);
});

test("a hidden page has no stream", async () => {
  const { stream, unmount } = await shown();
  const state = vi.spyOn(document, "visibilityState", "get").mockReturnValue("hidden");
  document.dispatchEvent(new Event("visibilitychange"));
  expect(stream.readyState).toBe(Stream.CLOSED);
  state.mockReturnValue("visible");
  document.dispatchEvent(new Event("visibilitychange"));
  expect(Stream.opened).toHaveLength(2);
  unmount();
});

test("a refused stream is retried after a minute", async () => {
  const { stream, unmount } = await shown();
  stream.refuse();
  await pass(30_000);
  expect(Stream.opened).toHaveLength(1);
  await pass(31_000);
  expect(Stream.opened).toHaveLength(2);
  unmount();
});

test("a value without subjects opens no stream", async () => {
  const { unmount } = renderHook(() => useLive("x", () => Promise.resolve(1)));
  await pass(0);
  expect(Stream.opened).toHaveLength(0);
  unmount();
});
