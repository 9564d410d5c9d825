import { screen, within } from "@testing-library/react";
import { expect, test, vi } from "vitest";
import { RuntimePage } from "../../src/pages/RuntimePage";
import type { Runtime, RuntimeDetails } from "../../src/types";
import { address, click, choose, dialog, facts, fakeApi, fill, hasButton, installPageFakes, pass, rowsOf, show } from "../support/page";
import { makeRuntime, makeRuntimeDetails, makeRuntimeEdition, makeRuntimeWorker, MANAGER, TREES, VIEWER } from "../support/samples";

installPageFakes();

const SHARE = "Share of the workers in percent (100: all)";
const LABELS = /^Only workers with these labels/;

async function open(changes: Partial<RuntimeDetails> = {}, me = VIEWER): Promise<void> {
  fakeApi().on("GET", "runtimes/default", makeRuntimeDetails(changes));
  await show(<RuntimePage me={me} name="default" />, "?tab=runtimes&runtime=default");
}

/** Open the page as a manager; the API accepts each action. */
async function manage(about: Partial<Runtime> = {}, changes: Partial<RuntimeDetails> = {}): Promise<void> {
  for (const verb of ["roll", "halt", "resume"]) fakeApi().on("POST", `runtimes/default/${verb}`, makeRuntime(about));
  await open({ about: makeRuntime(about), ...changes }, MANAGER);
}

function actions(): string[] {
  return ["Roll out", "Roll back", "Halt", "Resume"].filter(hasButton);
}

test("the facts of a runtime name its rollout, its workers and what it is built with", async () => {
  await open();
  expect(facts()).toEqual({
    "Rolled out": "serial 2: all workers",
    "Previous serial": "1",
    "Newest serial": "2",
    Workers: "3 ready",
    Queues: "all queues without a rule",
    "Built with": "Airflow 3.3.2, Task SDK 1.3.2, provider 1.2.0",
    Builds: "again when central's versions change",
    "Last change": "1 hour ago (ann)",
  });
});

test("the recipe is among the facts, and so is why it is halted or could not be built", async () => {
  await open({
    about: makeRuntime({ halted: "worker oven-2: no disk", trouble: "no wheel of numpy", percent: 10, labels: { site: "kiel" }, built: 3, follow: false }),
    requirements: "numpy\npandas>=2\n",
    env: { TZ: "UTC" },
    wanted_platforms: ["cp311-linux-gnu-x86_64", "cp312-windows-x86_64"],
    build_sdists: true,
  });
  expect(facts()).toMatchObject({
    "Rolled out": "serial 2: 10 % of the workers with site=kiel",
    "Newest serial": "3not rolled out",
    Halted: "worker oven-2: no disk",
    Trouble: "no wheel of numpy",
    Builds: "only on command; packages without a wheel are built on central",
    Platforms: "cp311-linux-gnu-x86_64cp312-windows-x86_64",
    Requirements: "numpy\npandas>=2",
    Variables: "TZ=UTC",
  });
});

test("the editions are rows by serial and platform, with their sizes and trees", async () => {
  await open({
    editions: [
      makeRuntimeEdition({ jobs: 4 }),
      makeRuntimeEdition({ platform: "cp312-windows-x86_64", tree: TREES[1], ready: 0 }),
      makeRuntimeEdition({ serial: 1, tree: TREES[1], files: 1, bytes: 900, ready: 1, published_at: "2026-01-01T10:00:00Z" }),
    ],
  });
  expect(rowsOf("Editions")).toEqual([
    ["2rolled out", "cp311-linux-gnu-x86_64", "0123456789ab", "3555 files, 81 MB", "1 hour ago", "3 workers", "4"],
    ["2rolled out", "cp312-windows-x86_64", "fedcba987654", "3555 files, 81 MB", "1 hour ago", "0 workers", ""],
    ["1previous", "cp311-linux-gnu-x86_64", "fedcba987654", "1 file, 900 B", "2 hours ago", "1 worker", ""],
  ]);
});

test("each worker is a row with its serial, phase, progress and reason, and opens its page", async () => {
  const nothing = { airflow: "", task_sdk: "", python: "" };
  await open({
    about: makeRuntime({ workers: 1200 }),
    workers: [
      makeRuntimeWorker({ worker: "pi-1", platform: "cp310-linux-musl-x86_64", serial: null, phase: "missing", ready_serials: [], ...nothing, detail: "build it" }),
      makeRuntimeWorker({ worker: "pi-2", phase: "preparing", ready_serials: [1], ...nothing, detail: "being prepared (43 %)" }),
      makeRuntimeWorker({ worker: "pi-3", phase: "dreaming", ready_serials: [], ...nothing }),
      makeRuntimeWorker(),
    ],
  });
  expect(rowsOf("Workers that are to have it")).toEqual([
    ["pi-1", "cp310-linux-musl-x86_64", "–", "without an edition", "", "", "build it"],
    ["pi-2", "cp311-linux-gnu-x86_64", "2", "preparing", "1", "", "being prepared (43 %)"],
    ["pi-3", "cp311-linux-gnu-x86_64", "2", "dreaming", "", "", ""],
    ["oven-1", "cp311-linux-gnu-x86_64", "2", "ready", "1, 2", "Airflow 3.3.2, Task SDK 1.3.2, Python 3.11.9", ""],
  ]);
  expect(screen.getByText("4 of 1200 workers are listed, first those that do not have it ready")).toBeDefined();
  await click("pi-2");
  expect(address()).toEqual({ tab: "fleet", worker: "pi-2" });
});

test("what is not there has a notice, and the command that builds it", async () => {
  await open({ about: makeRuntime({ serial: 0, previous: 0, built: 0, workers: 0, ready: 0 }), editions: [], workers: [] });
  expect(facts()).toMatchObject({ "Rolled out": "none", Workers: "0 workers" });
  expect(screen.getByText("airflow remote runtimes build default")).toBeDefined();
  expect(screen.getByText(/^No worker is to have it/)).toBeDefined();
});

test("until the runtime is read, a text says so", async () => {
  vi.stubGlobal("fetch", () => new Promise(() => undefined));
  await show(<RuntimePage me={MANAGER} name="default" />);
  expect(screen.getByRole("status").textContent).toBe("Loading …");
  expect(actions()).toEqual([]);
});

test("an unknown runtime shows the cause, and the way back", async () => {
  fakeApi().refuse("GET", "runtimes/default", 404, "there is no runtime 'default'");
  await show(<RuntimePage me={MANAGER} name="default" />, "?tab=runtimes&runtime=default");
  expect(within(screen.getByRole("alert")).getByText("there is no runtime 'default'")).toBeDefined();
  expect(actions()).toEqual([]);
  await click("All runtimes");
  expect(address()).toEqual({ tab: "runtimes" });
});

test("a viewer has no actions", async () => {
  await open({ about: makeRuntime({ halted: "by ann" }) });
  expect(actions()).toEqual([]);
});

test.each<[string, Partial<Runtime>, string[]]>([
  ["rolled out", {}, ["Roll out", "Roll back", "Halt"]],
  ["halted", { halted: "by ann" }, ["Roll back", "Resume"]],
  ["halted, with a newer build", { halted: "by ann", built: 3 }, ["Roll out", "Roll back", "Resume"]],
  ["the first", { serial: 1, previous: 0, built: 1 }, ["Roll out"]],
  ["never built", { serial: 0, previous: 0, built: 0 }, []],
])("a runtime that is %s has the actions that the API accepts", async (_, about, expected) => {
  await manage(about);
  expect(actions()).toEqual(expected);
});

test("a new build is rolled out to a share of the workers with labels", async () => {
  await manage({ built: 3, percent: 50, labels: { old: "yes" } });
  await click("Roll out");
  expect(dialog().textContent).toContain("is to have serial 3");
  expect(within(dialog()).getByLabelText<HTMLInputElement>(SHARE).value).toBe("100");
  await fill(SHARE, "10 %", dialog());
  await fill(LABELS, "site=kiel, gpu=yes", dialog());
  await click("Roll out: default", dialog());
  expect(fakeApi().changes()).toEqual([
    { method: "POST", path: "runtimes/default/roll", body: { percent: 10, labels: { site: "kiel", gpu: "yes" } } },
  ]);
  expect(screen.queryByRole("dialog")).toBeNull();
});

test("a rollout that has begun is widened from its current share", async () => {
  await manage({ percent: 10, labels: { site: "kiel" } });
  await click("Roll out");
  expect(within(dialog()).getByLabelText<HTMLInputElement>(SHARE).value).toBe("10");
  expect(within(dialog()).getByLabelText<HTMLInputElement>(LABELS).value).toBe("site=kiel");
  await fill(SHARE, "100", dialog());
  await fill(LABELS, "", dialog());
  fakeApi().on("GET", "runtimes/default", makeRuntimeDetails());
  await click("Roll out: default", dialog());
  expect(fakeApi().changes()[0]?.body).toEqual({ percent: 100, labels: {} });
  await pass(100);
  expect(facts()["Rolled out"]).toBe("serial 2: all workers");
});

test.each([
  ["101", "", "Enter a whole number from 0 to 100."],
  ["a tenth", "", "Enter a whole number from 0 to 100."],
  ["", "", "Enter a whole number from 0 to 100."],
  ["10", "kiel", "Write each label as key=value, with commas between them."],
])("a share of %j with the labels %j is not sent", async (share, labels, problem) => {
  await manage();
  await click("Roll out");
  await fill(SHARE, share, dialog());
  await fill(LABELS, labels, dialog());
  await click("Roll out: default", dialog());
  expect(screen.getByRole("alert").textContent).toBe(problem);
  expect(fakeApi().changes()).toEqual([]);
});

test("an earlier serial is rolled out again, by default the previous one", async () => {
  const editions = [5, 4, 4, 3, 2].map((serial, at) => makeRuntimeEdition({ serial, platform: `platform ${at}` }));
  await manage({ serial: 4, previous: 2, built: 5 }, { editions });
  await click("Roll back");
  const serials = within(dialog()).getByLabelText<HTMLSelectElement>("Serial");
  expect([...serials.options].map((option) => option.text)).toEqual(["2, published 1 hour ago", "3, published 1 hour ago"]);
  expect(serials.value).toBe("2");
  await choose("Serial", "3", dialog());
  await click("Roll back: default", dialog());
  expect(fakeApi().changes()).toEqual([{ method: "POST", path: "runtimes/default/roll", body: { percent: 100, labels: {}, to: 3 } }]);
});

test("a rollout is halted with a reason", async () => {
  await manage();
  await click("Halt");
  expect(dialog().textContent).toContain("Workers that have serial 2 ready keep it.");
  await fill(/^Reason/, "numpy is slow", dialog());
  await click("Halt: default", dialog());
  expect(fakeApi().changes()).toEqual([{ method: "POST", path: "runtimes/default/halt", body: { reason: "numpy is slow" } }]);
});

test("a halted rollout is resumed", async () => {
  await manage({ halted: "worker oven-1: no disk" });
  await click("Resume");
  await click("Resume: default", dialog());
  expect(fakeApi().changes()).toEqual([{ method: "POST", path: "runtimes/default/resume", body: undefined }]);
});

test("if an action is refused, the dialog stays open with the cause", async () => {
  await manage();
  fakeApi().refuse("POST", "runtimes/default/halt", 403, "workers of other teams also take runtimes from central");
  await click("Halt");
  await click("Halt: default", dialog());
  expect(within(dialog()).getByRole("alert").textContent).toBe("workers of other teams also take runtimes from central");
});
