import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import "../src/main";
import { HomeSummary } from "../src/HomeSummary";
import { RemoteWorkers } from "../src/RemoteWorkers";
import { TaskTab } from "../src/TaskTab";

test("each app is a global under the name that the plugin registers", () => {
  const plugin = readFileSync("../provider/src/airflow_remote_provider/plugin.py", "utf-8");
  const registered = [...plugin.matchAll(/\{"name": "([^"]+)", "destination": "(\w+)"/g)].map((match) => [match[2], match[1]]);
  const names = Object.fromEntries(registered) as Record<string, string>;
  const apps = Object.fromEntries(Object.entries(names).map(([place, name]) => [place, Reflect.get(globalThis, name) as unknown]));
  expect(apps).toEqual({ nav: RemoteWorkers, dashboard: HomeSummary, task_instance: TaskTab });
});
