import { screen, within } from "@testing-library/react";
import { beforeEach, expect, test } from "vitest";
import { Queues } from "../../src/pages/Queues";
import { address, choose, click, dialog, fakeApi, fill, hasButton, pass, rows, show, installPageFakes } from "../support/page";
import { makePolicy, makeQueue, makeRuntime, MANAGER, VIEWER } from "../support/samples";

installPageFakes();

const BUNDLES = /^Dag bundles of its jobs/;
const RUNTIME = "Runtime (for workers that get it from central)";

beforeEach(() => {
  fakeApi().list("queues", [makeQueue(), makeQueue({ queue: "ships/north", is_unserved: true, workers: 0, lost_after_s: 600, oldest_queued_at: null })]);
  fakeApi().list("policies", [makePolicy(), makePolicy({ queue: "*", mode: "audit" })]);
});

test("each queue is a row with its jobs, workers and wait times", async () => {
  await show(<Queues me={VIEWER} />);
  const [one, other] = rows();
  expect(one).toEqual(["default", "2", "4", "", "2 minutes ago", "5", "16/20", "1.5 s / 1 min 30 s", "as configured", "Rules and policy"]);
  expect([other?.[4], other?.[5], other?.[8]]).toEqual(["–", "no worker serves it", "10 min"]);
});

test("the depth of the last 24 hours is a chart with its numbers", async () => {
  fakeApi().list("history/queue", [{ name: "default", span_s: 900, at: [0, 900, 1800], values: { queued: [1, null, 7] } }]);
  await show(<Queues me={VIEWER} />);
  expect(screen.getByRole("img", { name: "Waiting, last 24 h: 1 to 7, now 7" })).toBeDefined();
});

test("without queues there is a notice", async () => {
  fakeApi().list("queues", []);
  await show(<Queues me={VIEWER} />);
  expect(screen.getByText("No queue has jobs, workers or rules.")).toBeDefined();
});

test("an error is shown in place of the list", async () => {
  fakeApi().refuse("GET", "queues", 403, "you may not see workers");
  await show(<Queues me={VIEWER} />);
  expect(screen.getByRole("alert").textContent).toBe("you may not see workers");
});

test("a queue's name opens its jobs", async () => {
  await show(<Queues me={VIEWER} />, "?tab=queues");
  await click("ships/north");
  expect(address()).toEqual({ tab: "jobs", queue: "ships/north" });
});

test("a queue that has only a policy has a button of its own", async () => {
  fakeApi().list("policies", [makePolicy({ queue: "old" })]);
  await show(<Queues me={VIEWER} />);
  await click("Queue old");
  expect(address()).toEqual({ about: "old" });
  expect(dialog().textContent).toContain("plant_*");
});

test("a viewer reads rules and policy and cannot change them", async () => {
  await show(<Queues me={VIEWER} />, "?about=default");
  const text = dialog().textContent;
  for (const part of ["Lost after", "as configured", "Bundlesas for all queues", "Runtimedefault", "denied", "plant_*", "Last changed by ann"]) expect(text).toContain(part);
  expect(within(dialog()).getAllByRole("button").map((button) => button.textContent)).toEqual([""]); // Close
});

test("the rules of a queue are set and reset", async () => {
  fakeApi().on("PUT", "queues/default/rules", null, 204);
  await show(<Queues me={MANAGER} />, "?about=default");
  expect(hasButton("Reset all rules")).toBe(false);
  await fill("Lost after (seconds)", "900", dialog());
  fakeApi().list("queues", [makeQueue({ lost_after_s: 900 })]);
  await click("Set rules", dialog());
  expect(fakeApi().changes()).toEqual([{ method: "PUT", path: "queues/default/rules", body: { lost_after_s: 900 } }]);
  await pass(100);
  fakeApi().on("DELETE", "queues/default/rules", null, 204);
  await click("Reset all rules", dialog());
  expect(fakeApi().changes()[1]).toEqual({ method: "DELETE", path: "queues/default/rules", body: undefined });
});

test("a rule that is no number is not sent", async () => {
  await show(<Queues me={MANAGER} />, "?about=default");
  await fill("Lost after (seconds)", "soon", dialog());
  await click("Set rules", dialog());
  expect(screen.getByRole("alert").textContent).toBe("Enter a number of seconds, such as 600.");
  expect(fakeApi().changes()).toEqual([]);
});

test("a name with a slash is encoded in the path", async () => {
  fakeApi().on("PUT", "queues/ships/north/rules", null, 204);
  await show(<Queues me={MANAGER} />, "?about=ships/north");
  expect(within(dialog()).getByLabelText<HTMLInputElement>("Lost after (seconds)").value).toBe("600");
  await fill("Lost after (seconds)", "700", dialog());
  await click("Set rules", dialog());
  expect(fakeApi().changes()).toEqual([{ method: "PUT", path: "queues/ships/north/rules", body: { lost_after_s: 700 } }]);
});

test("the bundles and the runtime of a queue are set, and only what was changed is sent", async () => {
  fakeApi().list("queues", [makeQueue({ lost_after_s: 600 })]);
  fakeApi().list("runtimes", [makeRuntime(), makeRuntime({ name: "torch" })]);
  fakeApi().on("PUT", "queues/default/bundles", null, 204);
  fakeApi().on("PUT", "queues/default/runtime", null, 204);
  await show(<Queues me={MANAGER} />, "?about=default");
  await fill(BUNDLES, " dags, plant-* ", dialog());
  await choose(RUNTIME, "torch", dialog());
  await click("Set rules", dialog());
  expect(fakeApi().changes()).toEqual([
    { method: "PUT", path: "queues/default/bundles", body: { bundles: ["dags", "plant-*"] } },
    { method: "PUT", path: "queues/default/runtime", body: { runtime: "torch" } },
  ]);
});

test("empty fields take the rules of bundles and runtime back", async () => {
  fakeApi().list("queues", [makeQueue({ bundles: ["dags"], runtime: "torch" })]);
  fakeApi().on("PUT", "queues/default/bundles", null, 204);
  fakeApi().on("PUT", "queues/default/runtime", null, 204);
  await show(<Queues me={MANAGER} />, "?about=default");
  const runtime = within(dialog()).getByLabelText<HTMLSelectElement>(RUNTIME);
  expect([...runtime.options].map((option) => option.text)).toEqual(["default", "torch"]);
  expect(runtime.value).toBe("torch");
  await fill(BUNDLES, "", dialog());
  await choose(RUNTIME, "", dialog());
  await click("Set rules", dialog());
  expect(fakeApi().changes().map(({ body }) => body)).toEqual([{ bundles: null }, { runtime: null }]);
});

test("a refused rule stays in its field with the cause, and later ones are not sent", async () => {
  fakeApi().list("runtimes", [makeRuntime({ name: "torch" })]);
  fakeApi().refuse("PUT", "queues/default/bundles", 403, "the queue also belongs to another team");
  await show(<Queues me={MANAGER} />, "?about=default");
  await fill(BUNDLES, "plant-*", dialog());
  await choose(RUNTIME, "torch", dialog());
  await click("Set rules", dialog());
  expect(screen.getByRole("alert").textContent).toBe("the queue also belongs to another team");
  expect(within(dialog()).getByLabelText<HTMLInputElement>(BUNDLES).value).toBe("plant-*");
  expect(fakeApi().changes()).toHaveLength(1);
});

test("for all queues only the bundles can be set", async () => {
  fakeApi().list("queues", [makeQueue(), makeQueue({ queue: "*", bundles: ["dags"] })]);
  fakeApi().on("PUT", "queues/*/bundles", null, 204);
  await show(<Queues me={MANAGER} />, "?about=*");
  expect(rows().map(([queue]) => queue)).toEqual(["default"]);
  expect(within(dialog()).queryByLabelText(RUNTIME)).toBeNull();
  expect(within(dialog()).getByLabelText<HTMLInputElement>(BUNDLES).value).toBe("dags");
  await fill(BUNDLES, "dags, plant-*", dialog());
  await click("Set rules", dialog());
  expect(fakeApi().changes()).toEqual([{ method: "PUT", path: "queues/*/bundles", body: { bundles: ["dags", "plant-*"] } }]);
});

test("names are allowed by kind and removed again", async () => {
  fakeApi().on("POST", "policies/default/allow", makePolicy());
  fakeApi().on("POST", "policies/default/deny", makePolicy());
  await show(<Queues me={MANAGER} />, "?about=default");
  await choose("Kind", "variables", dialog());
  await fill("Name", " oven_* ", dialog());
  await click("Allow", dialog());
  await click("Remove plant_*", dialog());
  expect(fakeApi().changes()).toEqual([
    { method: "POST", path: "policies/default/allow", body: { variables: ["oven_*"] } },
    { method: "POST", path: "policies/default/deny", body: { connections: ["plant_*"] } },
  ]);
  expect(within(dialog()).getByLabelText<HTMLInputElement>("Name").value).toBe("");
});

test("a refused name stays in its field, with the cause", async () => {
  fakeApi().refuse("POST", "policies/default/allow", 403, "the queue also belongs to another team");
  await show(<Queues me={MANAGER} />, "?about=default");
  await fill("Name", "oven_*", dialog());
  await click("Allow", dialog());
  expect(screen.getByRole("alert").textContent).toBe("the queue also belongs to another team");
  expect(within(dialog()).getByLabelText<HTMLInputElement>("Name").value).toBe("oven_*");
});

test("the mode of all queues is set", async () => {
  fakeApi().on("PUT", "policies/*/mode", makePolicy({ queue: "*" }));
  await show(<Queues me={MANAGER} />);
  await click("Policy for all queues");
  expect(within(dialog()).queryByLabelText("Lost after (seconds)")).toBeNull();
  await choose("Access that nothing grants", "enforce", dialog());
  expect(fakeApi().changes()).toEqual([{ method: "PUT", path: "policies/*/mode", body: { mode: "enforce" } }]);
});

test("a queue without a policy says which mode applies", async () => {
  fakeApi().list("policies", []);
  await show(<Queues me={VIEWER} />, "?about=default");
  expect(dialog().textContent).toContain("as for all queues");
  expect(within(dialog()).getAllByText("nothing")).toHaveLength(9);
});
