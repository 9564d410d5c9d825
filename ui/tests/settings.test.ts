import { expect, test } from "vitest";
import { Problem } from "../src/api";
import { wish, written, type Setting } from "../src/components/Settings";
import type { Worker } from "../src/types";

const worker = { queues: ["a", "b c"], labels: { site: "kiel", gpu: "yes" }, bundles: ["plant-*"], slots_limit: 2 } as unknown as Worker;

test("what stands there now is, unchanged, the wish for the same", () => {
  expect(wish("queues", written("queues", worker))).toEqual({ queues: worker.queues });
  expect(wish("labels", written("labels", worker))).toEqual({ labels: worker.labels });
  expect(wish("bundles", written("bundles", worker))).toEqual({ bundles: worker.bundles });
  expect(wish("slots", written("slots", worker))).toEqual({ slots: 2 });
});

test("no limit is written as nothing, and nothing means none", () => {
  const free = { ...worker, bundles: null, slots_limit: null };
  expect([written("bundles", free), written("slots", free)]).toEqual(["", ""]);
  expect(wish("bundles", " ")).toEqual({ bundles: null });
  expect(wish("slots", " ")).toEqual({ slots: null });
  expect(wish("slots", "0")).toEqual({ slots: 0 });
  expect(wish("labels", "")).toEqual({ labels: {} });
});

test.each<[Setting, string, string]>([
  ["queues", " , ", "at least one queue"],
  ["labels", "site", "key=value"],
  ["slots", "many", "whole number"],
  ["slots", "-1", "whole number"],
  ["slots", "1.5", "whole number"],
])("%s can't be %j, and the dialog says why", (setting, text, why) => {
  expect(() => wish(setting, text)).toThrow(Problem);
  expect(() => wish(setting, text)).toThrow(why);
});
