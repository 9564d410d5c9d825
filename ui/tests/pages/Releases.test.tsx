import { screen } from "@testing-library/react";
import { expect, test } from "vitest";
import { Releases } from "../../src/pages/Releases";
import type { ReleasesDetails, ReleasesSummary, ReleaseWorker } from "../../src/types";
import { address, click, dialog, facts, fakeApi, fill, hasButton, installPageFakes, rowsOf, show } from "../support/page";
import { MANAGER, TREES, VIEWER } from "../support/samples";

installPageFakes();

function makeAbout(changes: Partial<ReleasesSummary> = {}): ReleasesSummary {
  return {
    serial: 2,
    version: "0.3.0",
    previous: 1,
    built: 2,
    percent: 100,
    labels: {},
    halted: "",
    trouble: "",
    workers: 3,
    running: 3,
    trying: 0,
    preparing: 0,
    failed: 0,
    refused: 0,
    follow: true,
    updated_at: "2026-01-01T11:00:00Z",
    updated_by: "ann",
    ...changes,
  };
}

function makeReleaseWorker(changes: Partial<ReleaseWorker> = {}): ReleaseWorker {
  const known = { worker: "oven-1", platform: "cp311-linux-gnu-x86_64", serial: 2, version: "0.3.0", runs: "0.3.0", is_installed: false };
  return { ...known, phase: "running", detail: "", ...changes };
}

async function open(about: Partial<ReleasesSummary> = {}, changes: Partial<ReleasesDetails> = {}, me = VIEWER): Promise<void> {
  const edition = { platform: "cp311-linux-gnu-x86_64", files: 447, bytes: 6_800_000, published_at: "2026-01-01T11:00:00Z" };
  const editions = [
    { ...edition, serial: 2, version: "0.3.0", tree: TREES[0], running: 3 },
    { ...edition, serial: 1, version: "0.2.0", tree: TREES[1], running: 0 },
  ];
  fakeApi().on("GET", "releases", { about: makeAbout(about), editions, workers: [makeReleaseWorker()], statements: [], ...changes });
  await show(<Releases me={me} />, "?tab=releases");
}

function actions(): string[] {
  return ["Roll out", "Roll back", "Halt", "Resume"].filter(hasButton);
}

test("without a release, the command that adds one is shown", async () => {
  fakeApi().refuse("GET", "releases", 404, "central has no release of the worker");
  await show(<Releases me={MANAGER} />, "?tab=releases");
  expect(screen.getByText("airflow remote releases add")).toBeDefined();
  expect(screen.queryByRole("alert")).toBeNull();
});

test("another problem is shown as it is", async () => {
  fakeApi().refuse("GET", "releases", 503, "the database does not answer");
  await show(<Releases me={MANAGER} />, "?tab=releases");
  expect(screen.getByText("the database does not answer")).toBeDefined();
});

test("the facts name the rollout, its version and how far it is", async () => {
  await open({ percent: 10, labels: { site: "kiel" }, running: 1, failed: 1, refused: 1, halted: "worker oven-2: it can't be imported", built: 3 });
  expect(facts()).toEqual({
    "Rolled out": "serial 2: 10 % of the workers with site=kiel",
    Version: "0.3.0",
    Builds: "again when central's versions change",
    Halted: "worker oven-2: it can't be imported",
    "Previous serial": "1",
    "Newest serial": "3not rolled out",
    Workers: "1 running1 failed1 refused",
    "Last change": "1 hour ago (ann)",
  });
});

test("each release is a row for each platform, and each worker opens its page", async () => {
  await open(
    {},
    {
      workers: [
        makeReleaseWorker({ worker: "pi-1", phase: "failed", runs: "0.1.0", is_installed: true, detail: "its self-test ended with 1" }),
        makeReleaseWorker({ worker: "pi-2", phase: "trying" }),
        makeReleaseWorker({ worker: "pi-3", serial: 0, version: "", phase: "", runs: "0.1.0", is_installed: true }),
      ],
    },
  );
  expect(rowsOf("Editions").map((row) => row.slice(0, 3))).toEqual([
    ["2rolled out", "0.3.0", "cp311-linux-gnu-x86_64"],
    ["1previous", "0.2.0", "cp311-linux-gnu-x86_64"],
  ]);
  expect(rowsOf("Workers that take releases from central")).toEqual([
    ["pi-1", "cp311-linux-gnu-x86_64", "0.1.0, installed by its site", "2 (0.3.0)", "failed", "its self-test ended with 1"],
    ["pi-2", "cp311-linux-gnu-x86_64", "0.3.0", "2 (0.3.0)", "on trial", ""],
    ["pi-3", "cp311-linux-gnu-x86_64", "0.1.0, installed by its site", "–", "", ""],
  ]);
  await click("pi-2");
  expect(address()).toEqual({ tab: "fleet", worker: "pi-2" });
});

test("a manager can halt the first release too: the other workers keep what they run", async () => {
  fakeApi().on("POST", "releases/halt", makeAbout());
  await open({ serial: 1, built: 1, previous: 0 }, {}, MANAGER);
  expect(actions()).toEqual(["Roll out", "Halt"]);
  await click("Halt");
  expect(dialog().textContent).toContain("Workers that run serial 1 keep it.");
  expect(dialog().textContent).toContain("or keep what they run if no serial came before");
  await fill("Reason (shown to users and in the audit)", "slow");
  await click("Halt: Releases of the worker", dialog());
  expect(fakeApi().changes()).toEqual([{ method: "POST", path: "releases/halt", body: { reason: "slow" } }]);
});

test("a new release is rolled out to a share of the workers with labels", async () => {
  fakeApi().on("POST", "releases/roll", makeAbout());
  await open({ built: 3 }, {}, MANAGER);
  await click("Roll out");
  expect(dialog().textContent).toContain("is to run serial 3");
  await fill("Share of the workers in percent (100: all)", "10");
  await fill("Only workers with these labels, such as site=kiel (empty: any)", "site=kiel");
  await click("Roll out: Releases of the worker", dialog());
  expect(fakeApi().changes()).toEqual([{ method: "POST", path: "releases/roll", body: { percent: 10, labels: { site: "kiel" } } }]);
});

test("an earlier release is rolled out again", async () => {
  fakeApi().on("POST", "releases/roll", makeAbout());
  await open({}, {}, MANAGER);
  await click("Roll back");
  await click("Roll back: Releases of the worker", dialog());
  expect(fakeApi().changes()).toEqual([{ method: "POST", path: "releases/roll", body: { percent: 100, labels: {}, to: 1 } }]);
});

test("a halted release is resumed", async () => {
  fakeApi().on("POST", "releases/resume", makeAbout());
  await open({ halted: "by ann" }, {}, MANAGER);
  expect(actions()).toEqual(["Roll back", "Resume"]);
  await click("Resume");
  await click("Resume: Releases of the worker", dialog());
  expect(fakeApi().changes().map(({ method, path }) => [method, path])).toEqual([["POST", "releases/resume"]]);
});

test("why a release could not be added is among the facts", async () => {
  await open({ trouble: "no wheel for cp310-linux-gnu-aarch64" });
  expect(facts()["Trouble"]).toBe("no wheel for cp310-linux-gnu-aarch64");
});

test("without a worker that takes releases, a notice says so", async () => {
  await open({ workers: 0, running: 0 }, { workers: [] });
  expect(screen.getByText("No worker takes releases from central.")).toBeDefined();
});

test("a viewer has no actions", async () => {
  await open({ halted: "by ann" });
  expect(actions()).toEqual([]);
});

test("a long list says how many workers it leaves out, and in which order", async () => {
  await open({ workers: 1200 });
  expect(screen.getByText("1 of 1200 workers are listed, first those that do not run what they are to run")).toBeDefined();
});
