/**
 * The entry point of the one file that Airflow's page loads. Airflow looks for each app among the globals, under the name that
 * `plugin.py` registers.
 */

import { HomeSummary } from "./HomeSummary";
import { RemoteWorkers } from "./RemoteWorkers";
import { TaskTab } from "./TaskTab";

const APPS = { "Remote Workers": RemoteWorkers, "Remote Workers summary": HomeSummary, "Remote job": TaskTab };

for (const [name, app] of Object.entries(APPS)) Reflect.set(globalThis, name, app);
