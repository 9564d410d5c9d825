import { expect, test } from "vitest";
import { reasonOf } from "../src/components/Facts";

test.each([
  ["succeeded", "up_for_retry", ""],
  ["succeeded", "failed", ""],
  ["succeeded", "", ""],
  ["failed", "exited with 1", "exited with 1"],
  ["revoked", "failed", "failed"],
] as const)("of a job that %s with %s there is to say: %s", (state, reason, said) => expect(reasonOf({ state, reason })).toBe(said));
