import { expect, test } from "vitest";
import { Problem } from "../src/api";
import { parseSetting, formatSetting, type Setting } from "../src/components/Settings";
import type { Worker } from "../src/types";

const worker = { queues: ["a", "b c"], labels: { site: "kiel", gpu: "yes" }, bundles: ["plant-*"], slots_limit: 2 } as unknown as Worker;

test("a formatted setting parses to the same setting", () => {
  expect(parseSetting("queues", formatSetting("queues", worker))).toEqual({ queues: worker.queues });
  expect(parseSetting("labels", formatSetting("labels", worker))).toEqual({ labels: worker.labels });
  expect(parseSetting("bundles", formatSetting("bundles", worker))).toEqual({ bundles: worker.bundles });
  expect(parseSetting("slots", formatSetting("slots", worker))).toEqual({ slots: 2 });
});

test("an empty text means no limit", () => {
  const free = { ...worker, bundles: null, slots_limit: null };
  expect([formatSetting("bundles", free), formatSetting("slots", free)]).toEqual(["", ""]);
  expect(parseSetting("bundles", " ")).toEqual({ bundles: null });
  expect(parseSetting("slots", " ")).toEqual({ slots: null });
  expect(parseSetting("slots", "0")).toEqual({ slots: 0 });
  expect(parseSetting("labels", "")).toEqual({ labels: {} });
});

test.each<[Setting, string, string]>([
  ["queues", " , ", "at least one queue"],
  ["labels", "site", "key=value"],
  ["slots", "many", "whole number"],
  ["slots", "-1", "whole number"],
  ["slots", "1.5", "whole number"],
])("%s cannot be %j, and the problem says why", (setting, text, why) => {
  expect(() => parseSetting(setting, text)).toThrow(Problem);
  expect(() => parseSetting(setting, text)).toThrow(why);
});
