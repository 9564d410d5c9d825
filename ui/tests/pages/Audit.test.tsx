import { screen } from "@testing-library/react";
import { beforeEach, expect, test } from "vitest";
import { Audit } from "../../src/pages/Audit";
import { address, fakeApi, fill, rows, show, installPageFakes } from "../support/page";
import { makeEntry } from "../support/samples";

installPageFakes();

beforeEach(() => fakeApi().list("audit", [makeEntry(), makeEntry({ kind: "refused", worker: null, actor: "", times: 7, detail: "bad token" })]));

test("each entry is a row, with its count if it occurred more than once", async () => {
  await show(<Audit />);
  expect(rows()).toEqual([
    ["1 hour ago", "action", "oven-1", "ann", "", "paused"],
    ["1 hour ago", "refused", "", "", "7", "bad token"],
  ]);
});

test("filters in the address are sent to the API under its names", async () => {
  await show(<Audit />, "?tab=audit&kind=action&worker_of=oven-1");
  expect(Object.fromEntries(fakeApi().to("GET", "audit")[0]?.query ?? [])).toEqual({ kind: "action", worker: "oven-1", limit: "250" });
});

test("filters that the user types are in the address", async () => {
  await show(<Audit />, "?tab=audit");
  await fill("Kind", "joined");
  await fill("Worker", "press-1");
  expect(address()).toEqual({ tab: "audit", kind: "joined", worker_of: "press-1" });
  expect(fakeApi().to("GET", "audit").at(-1)?.query.get("worker")).toBe("press-1");
});

test("without matching entries there is a notice", async () => {
  fakeApi().list("audit", []);
  await show(<Audit />);
  expect(screen.getByText("No matching audit entries.")).toBeDefined();
});

test("an unknown kind is refused by the API, and the cause is shown", async () => {
  fakeApi().refuse("GET", "audit", 422, "kind: 'x' is not one of 'action', 'joined'");
  await show(<Audit />, "?kind=x");
  expect(screen.getByRole("alert").textContent).toContain("kind: 'x' is not one of");
});
