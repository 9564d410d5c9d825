import { screen } from "@testing-library/react";
import { beforeEach, expect, test } from "vitest";
import { Jobs } from "../../src/pages/Jobs";
import { address, choose, click, dialog, fakeApi, fill, rows, show, installPageFakes } from "../support/page";
import { makeJob, TREES } from "../support/samples";

installPageFakes();

beforeEach(() => {
  fakeApi().list("jobs", [
    makeJob(),
    makeJob({ id: "job-2", state: "queued", worker: null, accepted_at: null, map_index: 3 }),
    makeJob({ id: "job-3", state: "failed", ended_at: "2026-01-01T11:30:00Z", reason: "exited with 1" }),
    makeJob({ id: "job-4", kind: "callback", state: "succeeded", dag_id: "", run_id: "", ended_at: "2026-01-01T11:30:00Z" }),
  ]);
});

test("each job is a row with its state, task, worker and reason", async () => {
  await show(<Jobs />);
  expect(rows()).toEqual([
    ["running", "bake.heat", "manual__1", "default", "oven-1", "", "59 minutes ago", "", "Stop"],
    ["queued", "bake.heat[3]", "manual__1", "default", "", "", "1 hour ago", "Why?", "Stop"],
    ["failed", "bake.heat", "manual__1", "default", "oven-1", "", "30 minutes ago", "exited with 1", ""],
    ["succeeded", "callback", "", "default", "oven-1", "", "30 minutes ago", "", ""],
  ]);
  expect(screen.getByText("4 of 4 rows loaded")).toBeDefined();
});

test("a task and its run link to Airflow's pages", async () => {
  fakeApi().list("jobs", [makeJob({ map_index: 3, run_id: "manual__1+00:00" })]);
  await show(<Jobs />);
  const links = screen.getAllByRole("link").map((link) => new URL(link.getAttribute("href") ?? "").pathname);
  expect(links).toEqual(["/dags/bake/runs/manual__1%2B00%3A00/tasks/heat/mapped/3", "/dags/bake/runs/manual__1%2B00%3A00"]);
});

test("a job shows its bundle, version and tree, and what its worker prepares or that it waits for code", async () => {
  fakeApi().list("jobs", [
    makeJob({ state: "offered", bundle: "dags", bundle_version: "v7", tree: TREES[0], detail: "code 43 %" }),
    makeJob({ id: "job-2", state: "queued", worker: null, bundle: "dags", code_waits: true }),
  ]);
  await show(<Jobs />, "?tab=jobs");
  expect(rows().map((row) => [row[0], row[5], row[7]])).toEqual([
    ["offered", "dagsv70123456789ab", "code 43 %"],
    ["queued", "dags", "waits for codeWhy?"],
  ]);
  await click("dags", document.querySelector<HTMLElement>("tr[data-row='job-1']") ?? undefined);
  expect(address()).toEqual({ tab: "bundles", bundle: "dags" });
});

test("a trigger is marked as its task's trigger", async () => {
  fakeApi().list("jobs", [makeJob({ kind: "trigger" })]);
  await show(<Jobs />);
  expect(rows()[0]?.[1]).toBe("bake.heat (trigger)");
});

test("filters in the address are sent to the API under its names", async () => {
  await show(<Jobs />, "?tab=jobs&worker_of=oven-1&dag_id=bake&run_id=r&task_id=t&older_than_s=3600&state=running");
  const query = Object.fromEntries(fakeApi().to("GET", "jobs")[0]?.query ?? []);
  expect(query).toEqual({ worker: "oven-1", dag_id: "bake", run_id: "r", task_id: "t", older_than_s: "3600", state: "running", limit: "250" });
});

test("filters that the user sets are in the address", async () => {
  await show(<Jobs />, "?tab=jobs");
  await fill("Worker", "oven-1");
  await choose("Age", "3600");
  expect(address()).toEqual({ tab: "jobs", worker_of: "oven-1", older_than_s: "3600" });
  await click("Clear filters");
  expect(address()).toEqual({ tab: "jobs" });
});

test("jobs that match nothing have a notice", async () => {
  fakeApi().list("jobs", []);
  await show(<Jobs />);
  expect(screen.getByText("No job matches.")).toBeDefined();
});

test("an error is shown in place of the list", async () => {
  fakeApi().refuse("GET", "jobs", 422, "older_than_s: not a number");
  await show(<Jobs />);
  expect(screen.getByRole("alert").textContent).toBe("older_than_s: not a number");
});

test("the reason why a job waits is read when the user asks", async () => {
  fakeApi().on("GET", "jobs/job-2/waiting", { why: "No worker serves the queue 'default'." });
  await show(<Jobs />);
  expect(fakeApi().to("GET", "jobs/job-2/waiting")).toEqual([]);
  await click("Why?");
  expect(screen.getByText("No worker serves the queue 'default'.")).toBeDefined();
});

test("if the reason cannot be read the cause takes its place", async () => {
  fakeApi().refuse("GET", "jobs/job-2/waiting", 503, "busy");
  await show(<Jobs />);
  await click("Why?");
  expect(rows()[1]?.[7]).toContain("busy");
});

test("a job is stopped with a reason", async () => {
  fakeApi().list("jobs", [makeJob()]);
  fakeApi().on("POST", "jobs/job-1/stop", makeJob(), 202);
  await show(<Jobs />);
  await click("Stop");
  expect(dialog().textContent).toContain("The task fails. Its retries decide what happens next.");
  await fill(/^Reason/, "wrong data", dialog());
  const reads = fakeApi().to("GET", "jobs").length;
  await click("Stop", dialog());
  expect(fakeApi().changes()).toEqual([{ method: "POST", path: "jobs/job-1/stop", body: { reason: "wrong data" } }]);
  expect(screen.queryByRole("dialog")).toBeNull();
  expect(fakeApi().to("GET", "jobs").length).toBeGreaterThan(reads);
});

test("if stopping a job is refused the dialog stays open with the cause", async () => {
  fakeApi().list("jobs", [makeJob()]);
  fakeApi().refuse("POST", "jobs/job-1/stop", 403, "you may not end jobs of the Dag 'bake'");
  await show(<Jobs />);
  await click("Stop");
  await click("Stop", dialog());
  expect(screen.getByRole("alert").textContent).toBe("you may not end jobs of the Dag 'bake'");
});

test("a cancelled dialog sends nothing", async () => {
  fakeApi().list("jobs", [makeJob()]);
  await show(<Jobs />);
  await click("Stop");
  await click("Cancel", dialog());
  expect(screen.queryByRole("dialog")).toBeNull();
  expect(fakeApi().changes()).toEqual([]);
});

test("a job's worker opens its page", async () => {
  fakeApi().list("jobs", [makeJob()]);
  await show(<Jobs />, "?tab=jobs&text=bake");
  await click("oven-1");
  expect(address()).toEqual({ tab: "fleet", worker: "oven-1" });
});
