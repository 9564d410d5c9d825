import { expect, test } from "vitest";
import { reasonOf } from "../src/components/Badges";

test.each([
  ["succeeded", "up_for_retry", ""],
  ["succeeded", "failed", ""],
  ["succeeded", "", ""],
  ["failed", "exited with 1", "exited with 1"],
  ["revoked", "failed", "failed"],
] as const)("a job that %s with the reason %j shows the reason %j", (state, reason, shown) => expect(reasonOf({ state, reason })).toBe(shown));
