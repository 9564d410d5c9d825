import { expect, test } from "vitest";
import { linePath } from "../src/components/Sparkline";

const day = { until: 86_400, lastS: 86_400 };
const path = (at: number[], values: (number | null)[], most: number) => linePath({ at, values, spanS: 900 }, day.until, day.lastS, most);

test("points are joined from the lower edge to the upper", () => {
  expect(path([0, 900], [0, 10], 10)).toBe("M0.0 23.0 h0.01L1.3 1.0");
});

test("the line has a gap where nothing was measured", () => {
  expect(path([0, 900, 43_200], [1, 1, 1], 1).match(/M/g)).toHaveLength(2);
  expect(path([0, 900, 1800], [1, null, 1], 1).match(/M/g)).toHaveLength(1);
});

test("a value that is always 0 is a line at the lower edge", () => {
  expect(path([0, 900], [0, 0], 0)).toBe("M0.0 23.0 h0.01L1.3 23.0");
});
