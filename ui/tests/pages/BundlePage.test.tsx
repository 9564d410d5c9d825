import { screen, within } from "@testing-library/react";
import { expect, test } from "vitest";
import { BundlePage } from "../../src/pages/BundlePage";
import type { BundleDetails } from "../../src/types";
import { address, click, facts, fakeApi, hasButton, installPageFakes, pass, show } from "../support/page";
import { makeBundle, makeBundleDetails, makeEdition, MANAGER, TREES, VIEWER } from "../support/samples";

installPageFakes();

async function open(changes: Partial<BundleDetails> = {}, me = VIEWER): Promise<void> {
  fakeApi().on("GET", "bundles/dags", makeBundleDetails(changes));
  await show(<BundlePage me={me} name="dags" />, "?tab=bundles&bundle=dags");
}

/** Return the texts of the rows of one table. */
function rowsOf(label: string): string[][] {
  const table = screen.getByRole("table", { name: label });
  return [...table.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("td")].map((cell) => cell.textContent));
}

test("the facts of a bundle name its publisher, tree and last scan", async () => {
  await open();
  expect(facts()).toEqual({
    Publisher: "API server kiel-1",
    Tree: "0123456789ab",
    Size: "12 files, 3.4 MB",
    Published: "1 hour ago",
    "Last scan": "10 seconds ago",
    "Held by": "2 workers",
  });
  expect(hasButton("Publish now")).toBe(false);
  expect(screen.queryByText(/^airflow remote publish/)).toBeNull();
});

test("trouble and waiting jobs are among the facts", async () => {
  await open({ about: makeBundle({ trouble: "dags/link.py leads outside of the bundle", waiting: 2, version: "v7" }) });
  expect(facts()).toMatchObject({ Trouble: "dags/link.py leads outside of the bundle", "Jobs that wait for it": "2", Version: "v7" });
});

test("the last trees are rows, and a wanted version shows why it is missing", async () => {
  await open({
    about: makeBundle({ tree: TREES[1] }),
    editions: [
      makeEdition({ version: "v9", tree: null, files: null, bytes: null, published_at: null, wanted_at: "2026-01-01T11:55:00Z", trouble: "no such tag", workers: 0 }),
      makeEdition({ version: "v8", tree: TREES[1], jobs: 4 }),
      makeEdition({ version: "v7", published_at: "2026-01-01T10:00:00Z", workers: 1 }),
    ],
  });
  expect(rowsOf("Published trees and wanted versions")).toEqual([
    ["v9", "not published", "", "", "0 workers", "", "jobs have needed it since 5 minutes agono such tag"],
    ["v8", "fedcba987654newest", "12 files, 3.4 MB", "1 hour ago", "2 workers", "4", ""],
    ["v7", "0123456789ab", "12 files, 3.4 MB", "2 hours ago", "1 worker", "", ""],
  ]);
});

test("the workers that hold it are listed, and each opens its page", async () => {
  await open({
    holders: [
      { worker: "oven-1", tree: TREES[0], is_newest: true },
      { worker: "oven-2", tree: TREES[1], is_newest: false },
    ],
  });
  expect(rowsOf("Workers that hold it")).toEqual([
    ["oven-1", "0123456789ab", "newest"],
    ["oven-2", "fedcba987654", "older"],
  ]);
  await click("oven-2");
  expect(address()).toEqual({ tab: "fleet", worker: "oven-2" });
});

test("a bundle that no process publishes has the command that publishes it", async () => {
  const about = makeBundle({ name: "Kiel's dags", tree: null, publisher: "", is_publishing: false });
  await open({ about, editions: [], holders: [] });
  expect(screen.getByText("airflow remote publish 'Kiel'\\''s dags'")).toBeDefined();
  expect(facts()).toMatchObject({ Publisher: "no process publishes it", Tree: "not published" });
  expect(screen.getByText("Nothing of this bundle was published yet.")).toBeDefined();
  expect(screen.getByText(/^No worker holds a tree of this bundle/)).toBeDefined();
});

test.each([
  ["done: nothing has changed", TREES[0]],
  ["done: published fedcba987654", TREES[1]],
])("a request to publish ends with its result: %s", async (result, tree) => {
  const requested = makeBundle({ wanted_at: "2026-01-01T12:00:00Z" });
  fakeApi().on("POST", "bundles/dags/publish", requested, 202);
  await open({}, MANAGER);
  fakeApi().on("GET", "bundles/dags", makeBundleDetails({ about: requested }));
  await click("Publish now");
  expect(screen.getByText("requested now")).toBeDefined();
  fakeApi().on("GET", "bundles/dags", makeBundleDetails({ about: makeBundle({ tree, scanned_at: "2026-01-01T12:00:02Z" }) }));
  await pass(6_000);
  expect(screen.getByText(result)).toBeDefined();
});

test("a request is shown to all users until a scan has begun after it", async () => {
  await open({ about: makeBundle({ wanted_at: "2026-01-01T11:59:00Z", is_publishing: false }) });
  expect(screen.getByText("requested 1 minute ago; no process publishes it now")).toBeDefined();
});

test("an unknown bundle shows the cause, and the way back", async () => {
  fakeApi().refuse("GET", "bundles/dags", 404, "there is no Dag bundle 'dags'");
  await show(<BundlePage me={VIEWER} name="dags" />, "?tab=bundles&bundle=dags");
  expect(within(screen.getByRole("alert")).getByText("there is no Dag bundle 'dags'")).toBeDefined();
  await click("All bundles");
  expect(address()).toEqual({ tab: "bundles" });
});

test("who has signed a tree is shown, and what has expired is marked", async () => {
  const key = "ab".repeat(32);
  const signed = { tree: TREES[0], name: "dags", serial: 0, key_ids: [key], signed_at: "2026-01-01T11:00:00Z" };
  await open({
    statements: [
      { ...signed, expires_at: null, has_expired: false },
      { ...signed, tree: TREES[1], expires_at: "2026-01-01T11:00:00Z", has_expired: true },
    ],
  });
  const rows = rowsOf("Signed by");
  expect(rows[0]).toEqual(["0123456789ab", "dags", "", "abababababababab", "1 hour ago", "does not expire"]);
  expect(rows[1]?.at(-1)).toBe("1 hour agoexpired");
});

test("that nobody has signed is said", async () => {
  await open();
  expect(screen.getByText("Nobody has signed any of these trees.")).toBeDefined();
});
