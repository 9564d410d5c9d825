import { expect, test } from "vitest";
import { duration, labelsIn, moment, namesIn, pairs, relative, shellWord, size } from "../src/format";

test.each([
  [0.123, "0.12 s"],
  [9.5, "9.5 s"],
  [59, "59 s"],
  [61, "1 min 1 s"],
  [7260, "2 h 1 min"],
  [90_061, "1 d 1 h"],
])("%d seconds are %s", (seconds, text) => expect(duration(seconds)).toBe(text));

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [1500, "1.5 kB"],
  [64_000_000, "64 MB"],
  [2_147_483_648, "2.1 GB"],
  [5e15, "5000 TB"],
])("%d bytes are %s", (bytes, text) => expect(size(bytes)).toBe(text));

test("a relative time is in its largest unit", () => {
  const now = Date.parse("2026-01-01T12:00:00Z");
  expect(relative("2026-01-01T11:59:30Z", now)).toBe("30 seconds ago");
  expect(relative("2026-01-01T09:00:00Z", now)).toBe("3 hours ago");
  expect(relative("2026-01-02T12:00:00Z", now)).toBe("tomorrow");
});

test("a moment is in the time zone that the user has chosen", () => {
  localStorage.setItem("timezone", "Asia/Tokyo");
  expect(moment("2026-01-01T20:00:00Z")).toContain("Jan 2, 2026");
  localStorage.setItem("timezone", "No/Where");
  expect(moment("2026-01-01T20:00:00Z")).toContain("2026");
  localStorage.removeItem("timezone");
});

test("names and labels are parsed with spaces and empty parts", () => {
  expect(namesIn(" a, b,,c ")).toEqual(["a", "b", "c"]);
  expect(labelsIn("site=kiel, gpu=yes")).toEqual({ site: "kiel", gpu: "yes" });
  expect(labelsIn("")).toEqual({});
  for (const text of ["site", "=x", "x="]) expect(labelsIn(text)).toBeUndefined();
  expect(pairs({ site: "kiel" })).toEqual(["site=kiel"]);
});

test("a name is one word of a shell command", () => {
  expect(shellWord("plant-7/dags.git")).toBe("plant-7/dags.git");
  expect(shellWord("Kiel's dags; $HOME")).toBe("'Kiel'\\''s dags; $HOME'");
  expect(shellWord("")).toBe("''");
});
