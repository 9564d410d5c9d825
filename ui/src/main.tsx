/** What Airflow's page loads: it looks for the app under its name, or under `AirflowPlugin`. */

import { RemoteWorkers } from "./RemoteWorkers";

Reflect.set(globalThis, "Remote Workers", RemoteWorkers);
Reflect.set(globalThis, "AirflowPlugin", RemoteWorkers);
