import { screen } from "@testing-library/react";
import { expect, test } from "vitest";
import { Runtimes } from "../../src/pages/Runtimes";
import { address, click, fakeApi, installPageFakes, pass, rows, show } from "../support/page";
import { makeRuntime } from "../support/samples";

installPageFakes();

test("each runtime is a row with its rollout, workers, queues and versions", async () => {
  fakeApi().list("runtimes", [
    makeRuntime({ queues: ["ovens"] }),
    makeRuntime({
      name: "torch",
      serial: 4,
      built: 5,
      percent: 10,
      labels: { gpu: "yes" },
      queues: ["train", "infer"],
      workers: 10,
      ready: 5,
      preparing: 2,
      failed: 1,
      missing: 2,
      built_with: { airflow: "3.3.2" },
    }),
  ]);
  await show(<Runtimes />);
  expect(rows()).toEqual([
    ["default", "2", "2", "all workers", "3 ready", "ovensall queues without a rule", "Airflow 3.3.2, Task SDK 1.3.2, provider 1.2.0", ""],
    [
      "torch",
      "4",
      "5not rolled out",
      "10 % of the workers with gpu=yes",
      "5 ready2 preparing1 failed2 without an edition",
      "traininfer",
      "Airflow 3.3.2",
      "",
    ],
  ]);
});

test("a halted rollout and a failed build show why", async () => {
  fakeApi().list("runtimes", [makeRuntime({ halted: "worker oven-1: numpy can't be imported", trouble: "cp310-linux-musl-x86_64: no wheel of numpy" })]);
  await show(<Runtimes />);
  expect(rows()[0]?.at(-1)).toBe("rollout halted: worker oven-1: numpy can't be importedcp310-linux-musl-x86_64: no wheel of numpy");
});

test("a runtime that was never built has no serial and no workers", async () => {
  fakeApi().list("runtimes", [makeRuntime({ serial: 0, previous: 0, built: 0, workers: 0, ready: 0, built_with: {} })]);
  await show(<Runtimes />);
  expect(rows()[0]?.slice(1, 5)).toEqual(["not rolled out", "", "", "0 workers"]);
});

test("without runtimes the next step is a command", async () => {
  await show(<Runtimes />);
  expect(screen.getByText("airflow remote runtimes build default")).toBeDefined();
});

test("an error is shown until the list can be read", async () => {
  fakeApi().refuse("GET", "runtimes", 503, "the database does not answer");
  await show(<Runtimes />);
  expect(screen.getByRole("alert").textContent).toBe("the database does not answer");
  fakeApi().list("runtimes", [makeRuntime()]);
  await pass(12_000);
  expect(screen.queryByRole("alert")).toBeNull();
  expect(rows()).toHaveLength(1);
});

test("a runtime's name opens its page", async () => {
  fakeApi().list("runtimes", [makeRuntime()]);
  await show(<Runtimes />, "?tab=runtimes");
  await click("default");
  expect(address()).toEqual({ tab: "runtimes", runtime: "default" });
});
