import { fireEvent, screen } from "@testing-library/react";
import { beforeEach, expect, test } from "vitest";
import { Fleet } from "../../src/pages/Fleet";
import { address, choose, click, dialog, fakeApi, fill, hasButton, pass, rows, show, installPageFakes } from "../support/page";
import { makeCount, makeWorker, MANAGER, VIEWER } from "../support/samples";

installPageFakes();

const WORKERS = [
  makeWorker({ labels: { site: "kiel" }, clock_off_s: 3 }),
  makeWorker({ name: "press-1", presence: "silent", intent: "pause", intent_by: "ann", intent_reason: "patching", intent_heard: false, alarm: "copied" }),
];

beforeEach(() => {
  fakeApi().list("workers", WORKERS);
  fakeApi().on("GET", "fleet", makeCount());
});

async function select(name: string): Promise<void> {
  fireEvent.click(screen.getByRole("checkbox", { name }));
  await pass(100);
}

test("each worker is a row with its presence, intent, slots and last contact", async () => {
  await show(<Fleet me={VIEWER} />);
  const [oven, press] = rows();
  expect(oven).toEqual(["oven-1", "online", "serving", "1/4", "", "default", "site=kiel", "1.2.0", "30 seconds ago", "3 s ahead", ""]);
  expect(press?.slice(1, 3)).toEqual(["silent", "pausedann: patchingnot received yet"]);
  expect(press?.at(-1)).toBe("copied");
  expect(screen.getByText("2 workers: 1 online, 1 silent")).toBeDefined();
  expect(screen.getByText("2 of 2 rows loaded")).toBeDefined();
});

test("the slots that administrators allow bound the bar", async () => {
  fakeApi().list("workers", [makeWorker({ slots_limit: 2, used_slots: 2 })]);
  await show(<Fleet me={VIEWER} />);
  expect(screen.getByRole("meter").getAttribute("aria-label")).toBe("2 of 2 slots");
});

test("running jobs link to Airflow's pages, and further ones to the tab Jobs", async () => {
  const job = { id: "j", kind: "task", dag_id: "bake", run_id: "manual__1", task_id: "heat", map_index: 2 };
  fakeApi().list("workers", [makeWorker({ running: [job], running_count: 4 })]);
  await show(<Fleet me={VIEWER} />);
  expect(screen.getByRole("link", { name: "heat[2]" }).getAttribute("href")).toMatch(/\/dags\/bake\/runs\/manual__1\/tasks\/heat\/mapped\/2$/);
  await click("+ 3 more");
  expect(address()).toEqual({ tab: "jobs", worker_of: "oven-1", state: "running" });
});

test("an empty fleet and filters without a match have different messages", async () => {
  fakeApi().list("workers", []);
  await show(<Fleet me={VIEWER} />);
  expect(screen.getByText("No worker has joined yet.")).toBeDefined();
  await fill("Search", "x");
  expect(screen.getByText("No worker matches.")).toBeDefined();
});

test("an error is shown and the rows that were read stay", async () => {
  await show(<Fleet me={VIEWER} />);
  fakeApi().refuse("GET", "workers", 503, "the database is away");
  await pass(6_000);
  expect(screen.getByRole("alert").textContent).toBe("the database is away");
  expect(rows()).toHaveLength(2);
});

test("an error before the first answer replaces the spinner", async () => {
  fakeApi().refuse("GET", "workers", 403, "you may not see workers");
  await show(<Fleet me={VIEWER} />);
  expect(screen.getByRole("alert").textContent).toBe("you may not see workers");
  expect(screen.queryByText("Loading …")).toBeNull();
});

test("filters in the address are sent to the API", async () => {
  await show(<Fleet me={VIEWER} />, "?text=ov&presence=online&queue=q&label=site%3Dkiel&version=1&flagged=true&order=-name");
  const { query } = fakeApi().to("GET", "workers")[0] ?? { query: undefined };
  expect(query?.toString()).toBe("text=ov&presence=online&queue=q&label=site%3Dkiel&version=1&flagged=true&order=-name&limit=250");
  expect(fakeApi().to("GET", "fleet")[0]?.query.get("order")).toBeNull();
});

test("filters that the user sets are in the address and clear together", async () => {
  await show(<Fleet me={VIEWER} />, "?order=name");
  await fill("Search", "oven");
  await choose("Presence", "silent");
  await choose("Intent", "pause");
  expect(address()).toEqual({ order: "name", text: "oven", presence: "silent", intent: "pause" });
  expect(fakeApi().to("GET", "workers").at(-1)?.query.get("intent")).toBe("pause");
  await click("Clear filters");
  expect(address()).toEqual({ order: "name" });
  expect(hasButton("Clear filters")).toBe(false);
});

test("a label filter is applied once it is a key and a value", async () => {
  await show(<Fleet me={VIEWER} />);
  await fill("Label (key=value)", "site");
  expect(address()).toEqual({});
  expect(screen.getByLabelText("Label (key=value)").getAttribute("aria-invalid")).toBe("true");
  await fill("Label (key=value)", "site=kiel");
  expect(address()).toEqual({ label: "site=kiel" });
});

test("a click on a column sorts by it, and a second click reverses the order", async () => {
  await show(<Fleet me={VIEWER} />);
  await click("Slots");
  expect(address()).toEqual({ order: "used_slots" });
  expect(screen.getByRole("columnheader", { name: "Slots ▲" }).getAttribute("aria-sort")).toBe("ascending");
  await click("Slots ▲");
  expect(fakeApi().to("GET", "workers").at(-1)?.query.get("order")).toBe("-used_slots");
});

test("a worker's name opens its page", async () => {
  await show(<Fleet me={VIEWER} />, "?text=oven");
  await click("oven-1");
  expect(address()).toEqual({ text: "oven", worker: "oven-1" });
});

test("a viewer can neither select workers nor let one join", async () => {
  await show(<Fleet me={VIEWER} />);
  expect(screen.queryByRole("checkbox")).toBeNull();
  expect(hasButton("Join a worker")).toBe(false);
});

test("selected workers are paused together, with the reason and the duration", async () => {
  fakeApi().on("POST", "workers/actions", { done: 2, refused: 0, workers: WORKERS.map(({ name }) => ({ name, problem: null })) });
  await show(<Fleet me={MANAGER} />);
  await select("Fleet");
  expect(screen.getByText("2 selected")).toBeDefined();
  await click("Pause");
  expect(dialog().textContent).toContain("Pause: 2 workers");
  await fill(/^Reason/, "new hydraulics", dialog());
  await fill(/^Duration/, "30", dialog());
  await click("Pause: 2 workers", dialog());
  expect(fakeApi().changes()).toEqual([
    { method: "POST", path: "workers/actions", body: { action: "pause", reason: "new hydraulics", lasts_s: 1800, names: ["oven-1", "press-1"] } },
  ]);
  expect(screen.queryByText("2 selected")).toBeNull();
});

test("an action without a reason sends none", async () => {
  fakeApi().on("POST", "workers/actions", { done: 1, refused: 0, workers: [{ name: "oven-1", problem: null }] });
  await show(<Fleet me={MANAGER} />);
  await select("oven-1");
  await click("Rotate credential");
  await click("Rotate credential: oven-1", dialog());
  expect(fakeApi().changes()[0]?.body).toEqual({ action: "rotate", names: ["oven-1"] });
});

test("if every worker is refused the dialog stays open with the causes", async () => {
  const problem = { detail: "oven-1 holds 2 jobs", code: "conflict" };
  fakeApi().on("POST", "workers/actions", { done: 0, refused: 1, workers: [{ name: "oven-1", problem }] });
  await show(<Fleet me={MANAGER} />);
  await select("oven-1");
  await click("Remove");
  await click("Remove: oven-1", dialog());
  expect(screen.getByRole("alert").textContent).toBe("oven-1 holds 2 jobs");
  expect(dialog()).toBeDefined();
});

test("a worker that is refused stays selected, with the cause", async () => {
  const problem = { detail: "press-1 is gone", code: "conflict" };
  fakeApi().on("POST", "workers/actions", { done: 1, refused: 1, workers: [{ name: "oven-1", problem: null }, { name: "press-1", problem }] });
  await show(<Fleet me={MANAGER} />);
  await select("Fleet");
  await click("Suspend");
  await click("Suspend: 2 workers", dialog());
  expect(screen.getByText("1 selected")).toBeDefined();
  expect(screen.getByText("1 done · press-1: press-1 is gone")).toBeDefined();
});

test("the dialog that lets a worker join opens and closes", async () => {
  await show(<Fleet me={MANAGER} />);
  await click("Join a worker");
  expect(dialog().textContent).toContain("Create token");
  await click("Close", dialog());
  await pass(1_000);
  expect(screen.queryByRole("dialog")).toBeNull();
});
