import { expect, test } from "vitest";
import { sensible } from "../src/components/Actions";
import { command } from "../src/pages/Join";
import type { Worker } from "../src/types";

function worker(some: Partial<Worker>): Worker {
  return { name: "w", presence: "online", intent: "serve", alarm: "", suspended_at: null, restart_asked_at: null, ...some } as Worker;
}

test("only what makes sense for one of them is offered", () => {
  expect(sensible([worker({})])).toEqual(["pause", "drain", "restart", "rotate", "suspend", "revoke", "remove"]);
  expect(sensible([worker({ intent: "pause" })])).toContain("serve");
  expect(sensible([worker({ alarm: "copied" })])).toContain("acknowledge");
  expect(sensible([worker({ suspended_at: "2026-01-01T00:00:00Z", alarm: "x" })])).not.toContain("acknowledge");
  expect(sensible([worker({ restart_asked_at: "2026-01-01T00:00:00Z" })])).not.toContain("restart");
  expect(sensible([worker({ presence: "gone" })])).not.toContain("revoke");
});

test("the token is in no list of processes, whatever the machine", () => {
  for (const system of ["shell", "ansible"] as const) {
    const text = command(system, "https://airflow.example.com", "arenr_secret");
    expect(text).toContain("airflow-remote-worker join https://airflow.example.com --token -");
    expect(text).not.toMatch(/--token arenr/);
  }
  expect(command("ansible", "u", "t")).toContain("no_log: true");
});
