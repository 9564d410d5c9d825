import { screen } from "@testing-library/react";
import { expect, test } from "vitest";
import { Bundles } from "../../src/pages/Bundles";
import { address, click, fakeApi, hasButton, installPageFakes, rows, show } from "../support/page";
import { makeBundle, MANAGER, VIEWER } from "../support/samples";

installPageFakes();

test("each bundle is a row with its publisher, tree, last scan, size and workers", async () => {
  fakeApi().list("bundles", [
    makeBundle(),
    makeBundle({ name: "git", version: "8f3c2a9d41b7e6058f3c2a9d41b7e6058f3c2a9d", files: 1, bytes: 900, workers: 1, waiting: 3, is_publishing: false }),
  ]);
  await show(<Bundles me={VIEWER} />);
  expect(rows()).toEqual([
    ["dags", "API server kiel-1", "", "0123456789ab", "10 seconds ago", "12 files, 3.4 MB", "2 workers", "", "", ""],
    ["git", "API server kiel-1does not publish it now", "8f3c2a9d41b7…", "0123456789ab", "10 seconds ago", "1 file, 900 B", "1 worker", "3", "", ""],
  ]);
  expect(hasButton("Publish now")).toBe(false);
});

test("a bundle that was never published shows that, and why", async () => {
  const never = { tree: null, files: null, bytes: null, published_at: null, scanned_at: null, publisher: "", is_publishing: false, workers: 0 };
  fakeApi().list("bundles", [makeBundle({ ...never, trouble: "the directory /dags does not exist" })]);
  await show(<Bundles me={VIEWER} />);
  expect(rows()[0]?.slice(1, 9)).toEqual([
    "no process publishes it",
    "",
    "not published",
    "never",
    "",
    "0 workers",
    "",
    "the directory /dags does not exist",
  ]);
});

test("without bundles the next step is a command", async () => {
  await show(<Bundles me={VIEWER} />);
  expect(screen.getByText("airflow remote publish NAME")).toBeDefined();
});

test("an error is shown in place of the list", async () => {
  fakeApi().refuse("GET", "bundles", 403, "you may not see workers");
  await show(<Bundles me={VIEWER} />);
  expect(screen.getByRole("alert").textContent).toBe("you may not see workers");
});

test("a bundle's name opens its page", async () => {
  fakeApi().list("bundles", [makeBundle()]);
  await show(<Bundles me={VIEWER} />, "?tab=bundles");
  await click("dags");
  expect(address()).toEqual({ tab: "bundles", bundle: "dags" });
});

test("a manager asks to publish a bundle, and the list is read again", async () => {
  const requested = makeBundle({ wanted_at: "2026-01-01T12:00:00Z" });
  fakeApi().list("bundles", [makeBundle()]);
  fakeApi().on("POST", "bundles/dags/publish", requested, 202);
  await show(<Bundles me={MANAGER} />);
  fakeApi().list("bundles", [requested]);
  await click("Publish now");
  expect(fakeApi().changes()).toEqual([{ method: "POST", path: "bundles/dags/publish", body: undefined }]);
  expect(rows()[0]?.at(-1)).toBe("Publish nowrequested now");
});

test("if the request is refused the cause is beside the button", async () => {
  fakeApi().list("bundles", [makeBundle()]);
  fakeApi().refuse("POST", "bundles/dags/publish", 403, "you may not manage workers of the team ovens");
  await show(<Bundles me={MANAGER} />);
  await click("Publish now");
  expect(screen.getByRole("alert").textContent).toBe("you may not manage workers of the team ovens");
});
