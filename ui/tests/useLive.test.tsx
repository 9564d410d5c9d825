import { act, renderHook } from "@testing-library/react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Problem } from "../src/api";
import { useLive } from "../src/useLive";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

async function pass(ms: number): Promise<void> {
  await act(() => vi.advanceTimersByTimeAsync(ms));
}

test("a value is read at intervals until the component unmounts", async () => {
  let count = 0;
  const live = renderHook(() => useLive("x", () => Promise.resolve({ count: ++count }), { everyMs: 1000 }));
  expect(live.result.current.isLoading).toBe(true);
  await pass(0);
  expect(live.result.current.value).toEqual({ count: 1 });
  await pass(1200);
  expect(live.result.current.value).toEqual({ count: 2 });
  live.unmount();
  await pass(10_000);
  expect(count).toBe(2);
});

test("a failure keeps the last value, reports the cause and backs off", async () => {
  const answers = [() => Promise.resolve("good"), () => Promise.reject(new Problem("away", 503, "busy")), () => Promise.resolve("back")];
  const live = renderHook(() => useLive("x", () => (answers.shift() ?? (() => Promise.resolve("back")))(), { everyMs: 1000 }));
  await pass(0);
  await pass(1200);
  expect(live.result.current).toMatchObject({ value: "good", problem: { message: "away" } });
  await pass(1200);
  expect(live.result.current.problem).toBeDefined();
  await pass(1200);
  expect(live.result.current).toMatchObject({ value: "back", problem: undefined });
});

test("a new key starts over and keeps the old value until the new one is read", async () => {
  const live = renderHook(({ key }) => useLive(key, () => Promise.resolve(key), { everyMs: 1000 }), { initialProps: { key: "a" } });
  await pass(0);
  live.rerender({ key: "b" });
  expect(live.result.current).toMatchObject({ value: "a", isLoading: true });
  await pass(0);
  expect(live.result.current).toMatchObject({ value: "b", isLoading: false });
});

test("an unchanged value renders nothing", async () => {
  const same = { rows: [] };
  let renders = 0;
  renderHook(() => {
    renders += 1;
    return useLive("x", () => Promise.resolve(same), { everyMs: 1000 });
  });
  await pass(3000); // React may render once more before it bails out
  const before = renders;
  await pass(10_000);
  expect(renders).toBe(before);
});

test("nothing is read while the page is hidden", async () => {
  let count = 0;
  const state = vi.spyOn(document, "visibilityState", "get").mockReturnValue("hidden");
  renderHook(() => useLive("x", () => Promise.resolve(++count), { everyMs: 1000 }));
  await pass(5000);
  expect(count).toBe(0);
  state.mockReturnValue("visible");
  document.dispatchEvent(new Event("visibilitychange"));
  await pass(0);
  expect(count).toBe(1);
});
