/**
 * What Airflow's page loads, once for all that it shows of ours: it looks for each app under its name among the globals. Where
 * each is shown says `plugin.py`.
 */

import { RemoteWorkers } from "./RemoteWorkers";
import { Strip } from "./Strip";
import { TaskTab } from "./TaskTab";

const APPS = { "Remote Workers": RemoteWorkers, "Remote Workers in a line": Strip, "Remote job": TaskTab };

for (const [name, app] of Object.entries(APPS)) Reflect.set(globalThis, name, app);
