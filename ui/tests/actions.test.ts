import { expect, test } from "vitest";
import { applicable } from "../src/components/Actions";
import { command } from "../src/pages/Join";
import type { Worker } from "../src/types";

function worker(some: Partial<Worker>): Worker {
  return { name: "w", presence: "online", intent: "serve", alarm: "", suspended_at: null, restart_asked_at: null, ...some } as Worker;
}

test("only actions that apply to one of the workers are offered", () => {
  expect(applicable([worker({})])).toEqual(["pause", "drain", "restart", "rotate", "suspend", "revoke", "remove"]);
  expect(applicable([worker({ intent: "pause" })])).toContain("serve");
  expect(applicable([worker({ alarm: "copied" })])).toContain("acknowledge");
  expect(applicable([worker({ suspended_at: "2026-01-01T00:00:00Z", alarm: "x" })])).not.toContain("acknowledge");
  expect(applicable([worker({ restart_asked_at: "2026-01-01T00:00:00Z" })])).not.toContain("restart");
  expect(applicable([worker({ presence: "gone" })])).not.toContain("revoke");
});

test("the token is never an argument of the join command", () => {
  for (const system of ["shell", "ansible"] as const) {
    const text = command(system, "https://airflow.example.com", "arenr_secret");
    expect(text).toContain("airflow-remote-worker join https://airflow.example.com --token -");
    expect(text).not.toMatch(/--token arenr/);
  }
  expect(command("ansible", "u", "t")).toContain("no_log: true");
});
