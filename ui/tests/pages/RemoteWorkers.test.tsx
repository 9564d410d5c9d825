import { fireEvent, screen } from "@testing-library/react";
import { beforeEach, expect, test } from "vitest";
import { RemoteWorkers } from "../../src/RemoteWorkers";
import { address, fakeApi, pass, show, installPageFakes } from "../support/page";
import { makeBundleDetails, makeCount, makeQueue, makeRuntimeDetails, makeWorker, MANAGER, VIEWER } from "../support/samples";

installPageFakes();

beforeEach(() => {
  fakeApi().on("GET", "me", MANAGER);
  fakeApi().on("GET", "fleet", makeCount());
  fakeApi().list("workers", [makeWorker()]);
  fakeApi().list("queues", [makeQueue({ queue: "ovens" })]);
});

function selectedTab(): string {
  return screen.getAllByRole("tab").find((tab) => tab.getAttribute("aria-selected") === "true")?.textContent ?? "";
}

async function open(tab: string): Promise<void> {
  fireEvent.click(screen.getByRole("tab", { name: tab }));
  await pass(100);
}

test("a manager has all tabs, and the fleet is the first", async () => {
  await show(<RemoteWorkers />);
  expect(screen.getAllByRole("tab").map((tab) => tab.textContent)).toEqual(["Fleet", "Queues", "Jobs", "Bundles", "Runtimes", "Releases", "Enrolment", "Audit"]);
  expect(selectedTab()).toBe("Fleet");
  expect(screen.getByRole("button", { name: "oven-1" })).toBeDefined();
});

test("a viewer has no tabs for managers, even by their address", async () => {
  fakeApi().on("GET", "me", VIEWER);
  await show(<RemoteWorkers />, "?tab=audit");
  expect(screen.getAllByRole("tab").map((tab) => tab.textContent)).toEqual(["Fleet", "Queues", "Jobs", "Bundles", "Runtimes", "Releases"]);
  expect(selectedTab()).toBe("Fleet");
  expect(fakeApi().to("GET", "audit")).toEqual([]);
});

test("while it is unknown who the user is, no managers' tab is shown", async () => {
  fakeApi().refuse("GET", "me", 503, "busy");
  await show(<RemoteWorkers />);
  expect(screen.getAllByRole("tab")).toHaveLength(6);
});

test.each([
  ["Queues", "queues", "ovens"],
  ["Jobs", "jobs", "No job matches."],
  ["Bundles", "bundles", "airflow remote publish NAME"],
  ["Runtimes", "runtimes", "airflow remote runtimes build default"],
  ["Releases", "releases", "airflow remote releases add"],
  ["Enrolment", "tokens", "There is no enrolment token."],
  ["Audit", "audit", "No matching audit entries."],
])("the tab %s is in the address and shows its list", async (name, tab, text) => {
  await show(<RemoteWorkers />, "?text=oven&order=name");
  await open(name);
  expect(address()).toEqual({ tab });
  expect(selectedTab()).toBe(name);
  expect(screen.getByText(text)).toBeDefined();
});

test("an unknown tab in the address shows the fleet", async () => {
  await show(<RemoteWorkers />, "?tab=nowhere");
  expect(selectedTab()).toBe("Fleet");
});

test("a worker in the address shows its page in place of the fleet", async () => {
  fakeApi().on("GET", "me", VIEWER);
  fakeApi().on("GET", "workers/oven-1", makeWorker());
  await show(<RemoteWorkers />, "?worker=oven-1");
  expect(screen.getByRole("heading", { name: "oven-1" })).toBeDefined();
  expect(fakeApi().to("GET", "fleet")).toEqual([]);
});

test("a bundle in the address shows its page in place of the list", async () => {
  fakeApi().on("GET", "bundles/dags", makeBundleDetails());
  await show(<RemoteWorkers />, "?tab=bundles&bundle=dags");
  expect(screen.getByRole("heading", { name: "dags" })).toBeDefined();
  expect(fakeApi().to("GET", "bundles")).toEqual([]);
});

test("a runtime in the address shows its page in place of the list", async () => {
  fakeApi().on("GET", "runtimes/default", makeRuntimeDetails());
  await show(<RemoteWorkers />, "?tab=runtimes&runtime=default");
  expect(screen.getByRole("heading", { name: "default" })).toBeDefined();
  expect(screen.getByRole("button", { name: "Roll out" })).toBeDefined();
  expect(fakeApi().to("GET", "runtimes")).toEqual([]);
});
