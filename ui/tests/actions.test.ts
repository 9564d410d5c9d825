import { expect, test } from "vitest";
import { applicable } from "../src/components/Actions";
import { command } from "../src/pages/Join";
import type { Worker } from "../src/types";

function worker(some: Partial<Worker>): Worker {
  return { name: "w", presence: "online", intent: "serve", alarm: "", suspended_at: null, restart_asked_at: null, release: null, ...some } as Worker;
}

test("only actions that apply to one of the workers are offered", () => {
  expect(applicable([worker({})])).toEqual(["pause", "drain", "restart", "rotate", "suspend", "revoke", "remove"]);
  expect(applicable([worker({ intent: "pause" })])).toContain("serve");
  expect(applicable([worker({ alarm: "copied" })])).toContain("acknowledge");
  expect(applicable([worker({ suspended_at: "2026-01-01T00:00:00Z", alarm: "x" })])).not.toContain("acknowledge");
  expect(applicable([worker({ restart_asked_at: "2026-01-01T00:00:00Z" })])).not.toContain("restart");
  expect(applicable([worker({ presence: "gone" })])).not.toContain("revoke");
  expect(applicable([worker({ release: { serial: 0, phase: "", detail: "", is_installed: true } })])).toContain("update");
});

test("the token is never an argument of the join command", () => {
  for (const way of ["pip", "uv", "pipx", "pyz", "ansible"] as const) {
    const text = command(way, "https://airflow.example.com", "arenr_secret");
    expect(text).toContain(" join https://airflow.example.com --token -");
    expect(text).not.toMatch(/--token arenr/);
  }
  expect(command("ansible", "u", "t")).toContain("no_log: true");
});

test("one block leads from nothing to a running service, and stops at the first error", () => {
  expect(command("uv", "https://airflow.example.com", "arenr_secret", "edge-1")).toBe(
    "uv tool install airflow-remote-worker &&\n" +
      "\"$(uv tool dir --bin)\"/airflow-remote-worker join https://airflow.example.com --name edge-1 --token - <<'EOF' &&\n" +
      "arenr_secret\nEOF\n" +
      '"$(uv tool dir --bin)"/airflow-remote-worker service install --now',
  );
});

test("a pattern is no name, and http to another machine needs a word", () => {
  expect(command("pyz", "https://airflow.example.com", "t", "edge-*")).not.toContain("--name");
  expect(command("pyz", "http://airflow.example.com", "t")).toContain("--insecure-http");
  expect(command("pyz", "http://localhost:8080", "t")).not.toContain("--insecure-http");
});
