import { screen } from "@testing-library/react";
import { expect, test } from "vitest";
import { TaskTab } from "../../src/TaskTab";
import { facts, fakeApi, pass, show, installPageFakes } from "../support/page";
import { makeJob, TREES } from "../support/samples";

installPageFakes();

const TAB = <TaskTab dagId="bake" runId="manual__1" taskId="heat" />;

test("the jobs of this task instance are read, not those of mapped ones", async () => {
  await show(TAB);
  const query = Object.fromEntries(fakeApi().to("GET", "jobs")[0]?.query ?? []);
  expect(query).toEqual({ dag_id: "bake", run_id: "manual__1", task_id: "heat", map_index: "-1", limit: "50" });
});

test("a task that ran elsewhere has a notice", async () => {
  await show(TAB);
  expect(screen.getByText("This task was not sent to a Remote Worker.")).toBeDefined();
});

test("an error is shown without a notice", async () => {
  fakeApi().refuse("GET", "jobs", 403, "you may not see jobs");
  await show(TAB);
  expect(screen.getByRole("alert").textContent).toBe("you may not see jobs");
  expect(screen.queryByText("This task was not sent to a Remote Worker.")).toBeNull();
});

test("a job that has ended shows its worker, its wait and its duration", async () => {
  fakeApi().list("jobs", [makeJob({ state: "failed", reason: "exited with 1", ended_at: "2026-01-01T11:03:30Z", offers: 2, slots: 2 })]);
  await show(TAB);
  expect(facts()).toEqual({
    State: "failed",
    Details: "exited with 1",
    Worker: "oven-1",
    Queue: "default",
    Try: "1",
    Waited: "1 min",
    Offers: "2",
    "Ran for": "2 min 30 s",
    Slots: "2",
  });
  expect(screen.getByRole("link", { name: "oven-1" }).getAttribute("href")).toBe("/plugin/remote-workers?worker=oven-1");
  expect(screen.getByRole("link", { name: "default" }).getAttribute("href")).toBe("/plugin/remote-workers?tab=jobs&queue=default");
});

test("a job that waits says why, and since when", async () => {
  fakeApi().list("jobs", [makeJob({ state: "queued", worker: null, accepted_at: null })]);
  fakeApi().on("GET", "jobs/job-1/waiting", { why: "No worker serves the queue 'default'." });
  await show(TAB);
  await pass(0);
  expect(facts()).toMatchObject({ State: "queued", Details: "No worker serves the queue 'default'.", Waited: "1 hour ago" });
});

test("a job's bundle, version and tree are shown, and the bundle opens its page", async () => {
  fakeApi().list("jobs", [makeJob({ state: "succeeded", ended_at: "2026-01-01T11:03:30Z", bundle: "dags", bundle_version: "v7", tree: TREES[0] })]);
  await show(TAB);
  expect(facts()).toMatchObject({ Bundle: "dags", "Bundle version": "v7", Tree: "0123456789ab" });
  expect(screen.getByRole("link", { name: "dags" }).getAttribute("href")).toBe("/plugin/remote-workers?tab=bundles&bundle=dags");
});

test("the runtime from central and the worker's release of a job are shown, and the runtime opens its page", async () => {
  const job = makeJob({ state: "succeeded", ended_at: "2026-01-01T11:03:30Z", release: "0.2.0" });
  fakeApi().list("jobs", [{ ...job, runtime: { tree: TREES[0], name: "ovens", serial: 3 } }]);
  await show(TAB);
  expect(facts()).toMatchObject({ Runtime: "ovens, serial 3", Release: "0.2.0" });
  expect(screen.getByRole("link", { name: "ovens, serial 3" }).getAttribute("href")).toBe("/plugin/remote-workers?tab=runtimes&runtime=ovens");
});

test("of a runtime that central does not keep any more the tree is shown", async () => {
  fakeApi().list("jobs", [makeJob({ state: "succeeded", ended_at: "2026-01-01T11:03:30Z", runtime: { tree: TREES[0], name: "", serial: 0 } })]);
  await show(TAB);
  expect(facts()).toMatchObject({ Runtime: "0123456789ab" });
});

test("a job that waits for code says so, with the reason", async () => {
  const why = "It waits until version v7 of the Dag bundle 'dags' is published, for 40 s at most. It was never published.";
  fakeApi().list("jobs", [makeJob({ state: "queued", worker: null, accepted_at: null, code_waits: true })]);
  fakeApi().on("GET", "jobs/job-1/waiting", { why });
  await show(TAB);
  await pass(0);
  expect(facts()).toMatchObject({ State: "queuedwaits for code", Details: why });
});

test("while a worker prepares a job its progress is followed", async () => {
  fakeApi().list("jobs", [makeJob({ state: "offered", accepted_at: null, detail: "code 43 %" })]);
  fakeApi().on("GET", "jobs/job-1/waiting", { why: "The worker prepares it (code 43 %)." });
  await show(TAB);
  await pass(0);
  expect(facts()["Details"]).toBe("The worker prepares it (code 43 %).");
  fakeApi().on("GET", "jobs/job-1/waiting", { why: "The worker prepares it (code 80 %)." });
  await pass(2_500);
  expect(facts()["Details"]).toBe("The worker prepares it (code 80 %).");
});

test("a running job shows what it uses", async () => {
  const job = makeJob();
  fakeApi().list("jobs", [job]);
  fakeApi().on("GET", "jobs/job-1/waiting", { why: "It has been running on oven-1 for an hour." });
  fakeApi().on("GET", "jobs/job-1", { ...job, usage: { cpus: 0.5, memory: 64e6 } });
  await show(TAB);
  await pass(0);
  expect(facts()).toMatchObject({ Details: "It has been running on oven-1 for an hour.", Processors: "0.50 busy", Memory: "64 MB" });
});

test("a Dag file that differs at the worker is named", async () => {
  fakeApi().list("jobs", [makeJob({ state: "succeeded", ended_at: "2026-01-01T11:03:30Z", site_code: "0123456789abcdef" })]);
  await show(TAB);
  expect(facts()["Code"]).toContain("The Dag file on oven-1 (version 01234567) differs from the one that central parsed.");
});

test("earlier tries are listed with the state that the task reported", async () => {
  const ended_at = "2026-01-01T11:03:30Z";
  fakeApi().list("jobs", [
    makeJob({ id: "job-2", try_number: 2, state: "succeeded", ended_at }),
    makeJob({ state: "succeeded", reason: "up_for_retry", ended_at }),
  ]);
  await show(TAB);
  expect(facts()["Try"]).toBe("2");
  expect(screen.getByText(/^Try 1:/).textContent).toBe("Try 1: up for retry oven-1 ");
});

test("a mapped task is asked for by its index", async () => {
  await show(<TaskTab dagId="bake" mapIndex="3" runId="manual__1" taskId="heat" />);
  expect(fakeApi().to("GET", "jobs")[0]?.query.get("map_index")).toBe("3");
});
