import { fireEvent, screen } from "@testing-library/react";
import { beforeEach, expect, test } from "vitest";
import { WorkerPage } from "../../src/pages/WorkerPage";
import type { Worker } from "../../src/types";
import { address, choose, click, dialog, fakeApi, fill, hasButton, pass, rows, show, installPageFakes } from "../support/page";
import { makeAccess, makeEntry, makeJob, makeWorker, MANAGER, VIEWER } from "../support/samples";

installPageFakes();

function serve(changes: Partial<Worker> = {}): void {
  fakeApi().on("GET", "workers/oven-1", makeWorker(changes));
}

function logLines(...texts: string[]): unknown {
  return { items: texts.map((text) => ({ at: "12:00:00", level: "info", logger: "session", text: [text] })), next: texts.length, more: false };
}

/** Return the facts by their labels. */
function facts(): Record<string, string> {
  return Object.fromEntries([...document.querySelectorAll("dt")].map((label) => [label.textContent, label.nextElementSibling?.textContent ?? ""]));
}

beforeEach(() => {
  serve();
  fakeApi().on("GET", "workers/oven-1/log", logLines());
});

test("the facts of a worker are shown, and those it lacks are left out", async () => {
  serve({
    team: "plant",
    bundles: ["dags-*"],
    clock_off_s: -4,
    slots_limit: 3,
    runtime: { airflow: "3.3.2", task_sdk: "1.3.2", python: "3.12" },
    certificate: "CN=oven-1",
  });
  await show(<WorkerPage me={VIEWER} name="oven-1" />);
  expect(facts()).toEqual({
    Intent: "serving",
    Slots: "1/3",
    Queues: "default",
    Bundles: "dags-*",
    Team: "plant",
    "Last contact": "30 seconds ago",
    Clock: "4 s behind",
    Host: "kiel-7",
    System: "Linux, x86_64, 3.12",
    Version: "1.2.0",
    Runtime: "Airflow 3.3.2, Task SDK 1.3.2, Python 3.12",
    Joined: "31 days ago",
    Certificate: "CN=oven-1",
  });
});

test("a worker that cannot run tasks says why", async () => {
  serve({ unfit: "its runtime lacks apache-airflow-task-sdk", alarm: "copied" });
  await show(<WorkerPage me={VIEWER} name="oven-1" />);
  expect(facts()).toMatchObject({ "Cannot run tasks": "its runtime lacks apache-airflow-task-sdk", Alarm: "copied" });
});

test.each([
  [{ serial: 2, phase: "trying", detail: "", is_installed: false }, "serial 2: on trial"],
  [{ serial: 2, phase: "failed", detail: "its self-test ended with 1", is_installed: true }, "serial 2: failed; installed by its site; its self-test ended with 1"],
  [{ serial: 0, phase: "", detail: "", is_installed: true }, "installed by its site"],
])("its release from central is %j", async (release, text) => {
  serve({ release });
  await show(<WorkerPage me={VIEWER} name="oven-1" />);
  expect(facts()["Release"]).toBe(text);
});

test("a worker that takes releases from central is updated on request", async () => {
  fakeApi().on("POST", "workers/actions", { done: 1, refused: 0, workers: [{ name: "oven-1", problem: null }] });
  serve({ release: { serial: 1, phase: "running", detail: "", is_installed: false } });
  await show(<WorkerPage me={MANAGER} name="oven-1" />);
  await click("Update");
  await click("Update: oven-1", dialog());
  expect(fakeApi().changes()).toEqual([{ method: "POST", path: "workers/actions", body: { action: "update", names: ["oven-1"] } }]);
});

test("a worker without releases from central has no such fact and no update", async () => {
  await show(<WorkerPage me={MANAGER} name="oven-1" />);
  expect(facts()).not.toHaveProperty("Release");
  expect(hasButton("Update")).toBe(false);
});

test("its runtimes from central are listed, and each opens its page", async () => {
  const versions = { airflow: "3.3.2", task_sdk: "1.3.2", python: "3.11.9" };
  serve({
    runtimes: [
      { name: "default", serial: 3, phase: "preparing", airflow: "", task_sdk: "", python: "", detail: "fetching 43 %" },
      { name: "default", serial: 2, phase: "ready", ...versions, detail: "" },
    ],
  });
  await show(<WorkerPage me={VIEWER} name="oven-1" />, "?worker=oven-1");
  expect(rows()).toEqual([
    ["default", "3", "preparing", "", "fetching 43 %"],
    ["default", "2", "ready", "Airflow 3.3.2, Task SDK 1.3.2, Python 3.11.9", ""],
  ]);
  await click("default", document.querySelector<HTMLElement>("tbody tr") ?? document.body);
  expect(address()).toEqual({ tab: "runtimes", runtime: "default" });
});

test("a worker with the runtime of its site has no such list", async () => {
  await show(<WorkerPage me={VIEWER} name="oven-1" />);
  expect(screen.queryByText("Runtimes from central")).toBeNull();
});

test("the usage of its machine is shown while the worker reports it", async () => {
  serve({ usage: { cpus: 1.25, cpu_count: 4, memory: 2e9, memory_total: 8e9, disk_free: 5e10 } });
  await show(<WorkerPage me={VIEWER} name="oven-1" />);
  expect(facts()).toMatchObject({ Processors: "1.3 of 4 busy", Memory: "2.0 GB of 8.0 GB", Disk: "50 GB free" });
});

test("an unknown worker is an error, with a way back to the fleet", async () => {
  fakeApi().refuse("GET", "workers/nobody", 404, "there is no worker named 'nobody'");
  await show(<WorkerPage me={VIEWER} name="nobody" />, "?worker=nobody&text=no");
  expect(screen.getByRole("alert").textContent).toBe("there is no worker named 'nobody'");
  expect(facts()).toEqual({});
  await click("All workers");
  expect(address()).toEqual({ text: "no" });
});

test("a viewer has no actions, log or audit", async () => {
  await show(<WorkerPage me={VIEWER} name="oven-1" />);
  for (const name of ["Pause", "Revoke", "Set queues"]) expect(hasButton(name)).toBe(false);
  expect(screen.queryByText("Worker log")).toBeNull();
  expect(fakeApi().to("GET", "audit")).toEqual([]);
});

test("jobs and requested access of this worker are listed", async () => {
  fakeApi().list("jobs", [makeJob()]);
  fakeApi().list("accesses", [makeAccess()]);
  await show(<WorkerPage me={VIEWER} name="oven-1" />);
  expect(screen.getByRole("link", { name: "bake.heat" })).toBeDefined();
  expect(screen.getByText("connections plant_db")).toBeDefined();
  for (const path of ["jobs", "accesses"]) expect(fakeApi().to("GET", path)[0]?.query.get("worker")).toBe("oven-1");
});

test("without jobs and requests there are notices", async () => {
  await show(<WorkerPage me={MANAGER} name="oven-1" />);
  for (const text of ["No job matches.", "The worker's jobs have requested no access.", "No matching log lines.", "No matching audit entries."]) {
    expect(screen.getByText(text)).toBeDefined();
  }
});

test("a manager sees the audit of this worker", async () => {
  fakeApi().list("audit", [makeEntry({ detail: "paused: new hydraulics" })]);
  await show(<WorkerPage me={MANAGER} name="oven-1" />);
  expect(screen.getByText("paused: new hydraulics")).toBeDefined();
});

test("a chart shows presence and used slots of the last 24 hours", async () => {
  fakeApi().list("history/worker", [{ name: "oven-1", span_s: 900, at: [0, 900], values: { online: [1, 1], used_slots: [0, 3] } }]);
  await show(<WorkerPage me={VIEWER} name="oven-1" />);
  expect(screen.getByRole("img", { name: "Slots, last 24 h: 0 to 3, now 3" })).toBeDefined();
  expect(fakeApi().to("GET", "history/worker")[0]?.query.get("name")).toBe("oven-1");
});

test.each<[string, string | RegExp, string, string, object]>([
  ["Set queues", /^Queues/, "default, ovens", "queues", { queues: ["default", "ovens"] }],
  ["Set labels", /^Labels/, "site=kiel", "labels", { labels: { site: "kiel" } }],
  ["Set bundles", /^Names of Dag bundles/, "", "bundles", { bundles: null }],
  ["Limit slots", /^Slot limit/, "3", "slots-limit", { slots: 3 }],
])("%s sends the new value", async (action, label, text, route, body) => {
  fakeApi().on("PUT", `workers/oven-1/${route}`, makeWorker());
  await show(<WorkerPage me={MANAGER} name="oven-1" />);
  await click(action);
  await fill(label, text, dialog());
  await click(action, dialog());
  expect(fakeApi().changes()).toEqual([{ method: "PUT", path: `workers/oven-1/${route}`, body }]);
  expect(screen.queryByRole("dialog")).toBeNull();
});

test("an invalid value is not sent, and the dialog says why", async () => {
  await show(<WorkerPage me={MANAGER} name="oven-1" />);
  await click("Set queues");
  await fill(/^Queues/, " ", dialog());
  await click("Set queues", dialog());
  expect(screen.getByRole("alert").textContent).toContain("Name at least one queue");
  expect(fakeApi().changes()).toEqual([]);
});

test("an action on this worker is confirmed first, and the worker is read again", async () => {
  fakeApi().on("POST", "workers/actions", { done: 1, refused: 0, workers: [{ name: "oven-1", problem: null }] });
  await show(<WorkerPage me={MANAGER} name="oven-1" />);
  await click("Drain");
  await fill(/^Reason/, "to be replaced", dialog());
  expect(fakeApi().changes()).toEqual([]);
  serve({ intent: "drain", intent_by: "op", intent_reason: "to be replaced" });
  await click("Drain: oven-1", dialog());
  expect(fakeApi().changes()[0]?.body).toEqual({ action: "drain", reason: "to be replaced", names: ["oven-1"] });
  expect(screen.getByText("1 done")).toBeDefined();
  expect(facts()["Intent"]).toContain("drainingop: to be replaced");
});

test("the worker log is followed: only new lines are read", async () => {
  fakeApi().on("GET", "workers/oven-1/log", logLines("session open", "offered job-1"));
  await show(<WorkerPage me={MANAGER} name="oven-1" />);
  expect(screen.getByRole("log").textContent).toContain("12:00:00 INFO session: session open");
  fakeApi().on("GET", "workers/oven-1/log", logLines("job-1 has ended"));
  await pass(3_000);
  expect(fakeApi().to("GET", "workers/oven-1/log").at(-1)?.query.get("after")).toBe("2");
  expect(screen.getByRole("log").textContent).toMatch(/session open.*job-1 has ended/);
});

test("the worker log is searched and filtered by level at the API", async () => {
  await show(<WorkerPage me={MANAGER} name="oven-1" />);
  await fill("Search", "boom");
  await choose("Minimum level", "error");
  const query = Object.fromEntries(fakeApi().to("GET", "workers/oven-1/log").at(-1)?.query ?? []);
  expect(query).toEqual({ contains: "boom", level: "error", most: "500" });
});

test("the worker log is downloaded from its own address", async () => {
  fakeApi().on("GET", "workers/a b", makeWorker({ name: "a b" }));
  fakeApi().on("GET", "workers/a b/log", logLines());
  await show(<WorkerPage me={MANAGER} name="a b" />);
  expect(screen.getByRole("link", { name: "Download" }).getAttribute("href")).toMatch(/remote\/ui\/v1\/workers\/a%20b\/log\/download$/);
});

test("a user who scrolls up in the log stays there", async () => {
  fakeApi().on("GET", "workers/oven-1/log", logLines("one"));
  await show(<WorkerPage me={MANAGER} name="oven-1" />);
  const log = screen.getByRole("log");
  Object.defineProperty(log, "scrollHeight", { value: 1000, configurable: true });
  log.scrollTop = 100;
  fireEvent.scroll(log);
  fakeApi().on("GET", "workers/oven-1/log", logLines("two"));
  await pass(3_000);
  expect(log.scrollTop).toBe(100);
  log.scrollTop = 990;
  fireEvent.scroll(log);
  fakeApi().on("GET", "workers/oven-1/log", logLines("three"));
  await pass(3_000);
  expect(log.scrollTop).toBe(1000);
});
