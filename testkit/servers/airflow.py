"""A real central: API server, scheduler and Dag processor as separate processes, and what users and administrators do with them.

    central = Airflow(home, database_url=url, dags=Path("e2e/dags"))
    central.start()
    run = central.trigger("hello")
    central.wait_for_run("hello", run)
    central.stop()

Runs with the interpreter of the environment that it is imported in (.work/central). All servers listen on loopback.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from sqlalchemy import Engine, create_engine, text

from testkit.processes import Process, clean_environment, free_port, wait_until

EXECUTORS = "LocalExecutor,RemoteExecutor:airflow_remote_provider.executor.RemoteExecutor"
RUN_ENDED = frozenset({"success", "failed"})
IDLE_S = "0.6"
"""How long an idle scheduler sleeps in deployments that many tests share.

With 0.3 s it and its database took a twelfth of a core all the time, with Airflow's default of 1 s half of that; the longer
it is, the later each task starts."""


@dataclass(frozen=True)
class User:
    name: str
    role: str
    password: str


class Airflow:
    """One deployment in the directory *home*. Its database must be empty or belong to an earlier start of this deployment."""

    def __init__(
        self,
        home: Path,
        *,
        database_url: str,
        dags: Path,
        settings: Mapping[str, str] | None = None,
        settings_of_api_server: Mapping[str, str] | None = None,
        password: str | None = None,
        programs: Path | None = None,
    ) -> None:
        """*settings* are more `AIRFLOW__SECTION__OPTION` variables, and those *of_api_server* are for that process alone.

        *programs* is the directory of `airflow`, if not our own.
        """
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.users = {
            name: User(name, role, password or secrets.token_urlsafe(9))
            for name, role in (("admin", "admin"), ("op", "op"), ("viewer", "viewer"))
        }
        self._bin = programs or Path(sys.executable).parent
        self._of_api_server = settings_of_api_server
        self._processes: dict[str, Process] = {}
        self._clients: dict[str, httpx.Client] = {}
        self._engine: Engine | None = None
        self._ports: dict[str, int] = {}
        home.mkdir(parents=True, exist_ok=True)
        passwords = home / "passwords.json"
        passwords.write_text(json.dumps({user.name: user.password for user in self.users.values()}))
        passwords.chmod(0o600)
        self.environment = clean_environment(
            {
                "PATH": f"{self._bin}{os.pathsep}{os.environ.get('PATH', '')}",
                "AIRFLOW_HOME": str(home),
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
                "AIRFLOW__CORE__EXECUTOR": EXECUTORS,
                "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{u.name}:{u.role}" for u in self.users.values()),
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
                "AIRFLOW__CORE__FERNET_KEY": "",
                "AIRFLOW__API__BASE_URL": self.url,
                "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
                "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
                # Dag files exist from the start and don't change: parsing them again only costs time.
                "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "60",
                # By default all deployments of a computer share clones of repositories below /tmp.
                "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(self.home / "dag-bundles"),
                "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
                # Two deployments on one computer must not use the same fixed ports.
                "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
                "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
                "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
                **(settings or {}),
            }
        )
        self.log_folder = Path(self.environment.get("AIRFLOW__LOGGING__BASE_LOG_FOLDER", home / "logs"))

    # -- its processes

    def start(self, *, triggerer: bool = False) -> Airflow:
        """Migrate the database and start everything; return when the API answers and the scheduler has sent a heartbeat."""
        self.cli("db", "migrate", timeout_s=300)
        self.start_api_server(wait=False)
        for name in ("scheduler", "dag-processor", *(["triggerer"] if triggerer else [])):
            self.start_process(name)
        self._wait_for_api_server()
        with httpx.Client(base_url=self.url, timeout=10) as client:
            what = "the scheduler and the Dag processor are healthy"
            wait_until(lambda: self._is_healthy(client), timeout_s=240, what=what, every_s=0.5)
        return self

    def upgrade(self, programs: Path) -> None:
        """Stop everything, migrate the database with the Airflow in *programs*, and start the same processes again."""
        ran = list(self._processes)
        for name in ran:
            self.stop_process(name)
        self._bin = programs
        self.environment["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
        self.start(triggerer="triggerer" in ran)

    def start_process(self, name: str, *, called: str | None = None, settings: Mapping[str, str] | None = None) -> Process:
        """Start `airflow <name>`; its log is `<home>/<name>.out`. A second process of a kind needs another name: *called*."""
        called = called or name
        process = Process(
            called,
            [self._bin / "airflow", *name.split()],
            log=self.home / f"{called}.out",
            env=self.environment | dict(settings or {}),
            cwd=self.home,
        )
        self._processes[called] = process
        return process

    def start_api_server(self, *, wait: bool = True) -> None:
        self.start_process(
            f"api-server --host 127.0.0.1 --port {self.port} --workers 1", called="api-server", settings=self._of_api_server
        )
        if wait:
            self._wait_for_api_server()

    def start_another_api_server(self, *, called: str, settings: Mapping[str, str] | None = None, path: str = "") -> str:
        """Start another API server with the same database and logs; return its URL when it answers below *path*.

        A server that has the same name *called* as an earlier one gets the port of that one.
        """
        port = self._ports.setdefault(called, free_port())
        url = f"http://127.0.0.1:{port}"
        # Its address differs from the deployment's base URL, as behind a load balancer.
        self.start_process(f"api-server --host 127.0.0.1 --port {port} --workers 1", called=called, settings=settings)
        self._wait_for_api_server(called, url + path)
        return url

    def kill_process(self, name: str) -> None:
        """`kill -9` the process and its children."""
        self._processes.pop(name).stop(signal.SIGKILL)

    def process(self, name: str) -> Process:
        return self._processes[name]

    def is_running(self, name: str) -> bool:
        return name in self._processes and self._processes[name].is_running()

    def stop_process(self, name: str, *, grace_s: float = 15) -> None:
        if name == "api-server":
            # A server that stops gracefully waits for open connections, including ours.
            for client in self._clients.values():
                client.close()
            self._clients.clear()
        process = self._processes.pop(name, None)
        if process is not None:
            process.stop(timeout_s=grace_s)

    def stop(self, *, grace_s: float = 15) -> None:
        """End all processes; kill each that has not ended *grace_s* after the one before."""
        for process in self._processes.values():
            process.send(signal.SIGTERM)  # so that they end at the same time, not one after the other
        for name in sorted(self._processes, key=lambda name: name == "api-server"):
            self.stop_process(name, grace_s=grace_s)
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def discard(self) -> None:
        """End all processes when no test needs the deployment any more. By themselves they take about ten seconds to end."""
        self.stop(grace_s=2)

    def logs(self, lines: int = 40) -> str:
        """Return the last lines of every process's log, without those of level info."""
        return "\n".join(process.tail(lines, leave_out="[info ") for process in self._processes.values())

    def cli(self, *arguments: str, timeout_s: float = 90) -> str:
        """Run `airflow …` as an administrator does on central's computer; return its output.

        Raises:
            RuntimeError: it failed; the message holds its output.
        """
        done = subprocess.run(
            [self._bin / "airflow", *arguments],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if done.returncode != 0:
            raise RuntimeError(f"airflow {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def provider_path(self) -> str:
        """Return the path of the provider that Airflow's processes import."""
        command = [str(self._bin / "python"), "-c", "import airflow_remote_provider; print(airflow_remote_provider.__file__)"]
        return subprocess.check_output(command, env=self.environment, cwd=self.home, text=True)

    def remote_cli(self, *arguments: str) -> Any:
        """Run `airflow remote … -o json` and return its parsed output."""
        output = self.cli("remote", *arguments, "-o", "json")
        # Airflow's start-up can print lines before it.
        begin = min((at for at in (output.find("\n{"), output.find("\n[")) if at >= 0), default=-1) + 1
        return json.loads(output[begin:])

    def remote_api(self, *path: str, **query: str) -> Any:
        """Return what the Remote Executor's REST API answers an administrator; of a list, all rows.

        For tests that are not about the command line, as :meth:`remote_change`: to start a command takes two seconds of a core.
        """
        rows: list[Any] = []
        while True:
            answer = self.client().get("/remote/ui/v1/" + "/".join(quote(part, safe="") for part in path), params=query)
            answer.raise_for_status()
            found = answer.json()
            if "items" not in found:
                return found
            rows += found["items"]
            if found["next"] is None:
                return rows
            query["after"] = found["next"]

    def remote_change(self, method: str, *path: str, **body: object) -> Any:
        """Change something by the Remote Executor's REST API as an administrator; return the answer, None if it is empty."""
        url = "/remote/ui/v1/" + "/".join(quote(part, safe="") for part in path)
        answer = self.client().request(method, url, json=body or None)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def query(self, sql: str, **values: object) -> list[dict[str, Any]]:
        """Return the rows of a SELECT on central's database, for facts that no API shows. *values* are its `:name` parameters."""
        if self._engine is None:
            # A test can restart the database server in between.
            self._engine = create_engine(self.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], pool_pre_ping=True)
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(sql), values).mappings()]

    def jobs(self, run_id: str) -> list[dict[str, Any]]:
        """Return the ledger's rows of a Dag run, oldest first."""
        return self.query("SELECT * FROM remote_job WHERE run_id = :run ORDER BY queued_at, id", run=run_id)

    def xcoms(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the XComs of a Dag run: `task_id`, `map_index`, `key`, and `value` as the database holds it."""
        is_by_id = bool(self.query("SELECT 1 FROM information_schema.tables WHERE table_name = 'xcom_v2'"))
        columns, source = "t.task_id, t.map_index, t.key, t.value", "xcom t"
        if is_by_id:  # Airflow 3.4
            columns = "t.task_id, t.region_index AS map_index, x.key, x.value"
            source = "xcom_v2 x JOIN task_instance t ON t.id = x.task_instance_id"
        where = "t.dag_id = :dag AND t.run_id = :run"
        return self.query(f"SELECT {columns} FROM {source} WHERE {where}", dag=dag_id, run=run_id)

    def enrolment_token(self, *, queues: str = "default", name_pattern: str = "*", team: str | None = None) -> str:
        new = {"queues": queues.split(","), "name_pattern": name_pattern, "team": team}
        return str(self.remote_change("POST", "enrolment-tokens", **new)["token"])

    # -- its public API, as a user

    def client(self, user: str = "admin") -> httpx.Client:
        """Return a client that is logged in as *user*."""
        if user not in self._clients:
            login = {"username": user, "password": self.users[user].password}
            answer = httpx.post(f"{self.url}/auth/token/cli", json=login, timeout=30)
            answer.raise_for_status()
            headers = {"authorization": f"Bearer {answer.json()['access_token']}", "accept": "application/json"}
            self._clients[user] = httpx.Client(base_url=self.url, headers=headers, timeout=30)
        return self._clients[user]

    def api(self, method: str, path: str, *, user: str = "admin", **arguments: Any) -> Any:
        """Call `/api/v2/<path>` and return the JSON answer (None if empty).

        Raises:
            httpx.HTTPStatusError: the answer is an error; the message holds its body.
        """
        answer = self.client(user).request(method, f"/api/v2/{path}", **arguments)
        if answer.is_error:
            message = f"{method} {path}: {answer.status_code} {answer.text[:500]}"
            raise httpx.HTTPStatusError(message, request=answer.request, response=answer)
        return answer.json() if answer.content else None

    def wait_for_dag(self, dag_id: str, *, timeout_s: float = 60) -> None:
        """Return when the Dag processor has parsed the Dag."""

        def known() -> bool:
            answer = self.client().get(f"/api/v2/dags/{dag_id}")
            return answer.status_code == 200 and not answer.json().get("is_stale", False)

        try:
            wait_until(known, timeout_s=timeout_s, what=f"Dag {dag_id} is known", every_s=0.3)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\nimport errors: {self.api('GET', 'importErrors')}") from None

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, *, run_id: str | None = None) -> str:
        """Start a Dag run and return its id. *conf* overrides the Dag's params."""
        self.wait_for_dag(dag_id)
        body = {"logical_date": None, "conf": dict(conf or {})} | ({"dag_run_id": run_id} if run_id else {})
        run = self.api("POST", f"dags/{dag_id}/dagRuns", json=body)
        return str(run["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        return str(self.api("GET", f"dags/{dag_id}/dagRuns/{quote(run_id)}")["state"])

    def wait_for_run(self, dag_id: str, run_id: str, *, timeout_s: float = 120) -> str:
        """Wait until the Dag run has ended; return its state.

        The wait reads the database: a request to the API server costs a hundred times as much, on the computer that runs the Dag.
        """
        sql = "SELECT state FROM dag_run WHERE dag_id = :dag AND run_id = :run"

        def has_ended() -> bool:
            return any(row["state"] in RUN_ENDED for row in self.query(sql, dag=dag_id, run=run_id))

        try:
            wait_until(has_ended, timeout_s=timeout_s, what=f"{dag_id} ends", every_s=0.2)
        except TimeoutError as error:
            states = {f"{ti['task_id']}[{ti['map_index']}]": ti["state"] for ti in self.task_instances(dag_id, run_id)}
            raise TimeoutError(f"{error}\ntasks: {states}\n{self.logs(15)}") from None
        return self.run_state(dag_id, run_id)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        answer = self.api("GET", f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances", params={"limit": 100})
        return list(answer["task_instances"])

    def task_instance(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1) -> dict[str, Any]:
        path = f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}"
        return dict(self.api("GET", path if map_index < 0 else f"{path}/{map_index}"))

    def wait_for_task(self, dag_id: str, run_id: str, task_id: str, *states: str, timeout_s: float = 120) -> str:
        """Return the state of the task, which is not mapped, as soon as it is one of *states*. The wait reads the database."""
        sql = "SELECT state FROM task_instance WHERE dag_id = :dag AND run_id = :run AND task_id = :task"

        def state() -> str | None:
            found = {row["state"] for row in self.query(sql, dag=dag_id, run=run_id, task=task_id)} & {*states}
            return str(found.pop()) if found else None

        what = f"{dag_id}.{task_id} is {' or '.join(states)}"
        try:
            return str(wait_until(state, timeout_s=timeout_s, what=what, every_s=0.2))
        except TimeoutError as error:
            now = self.task_instance(dag_id, run_id, task_id)["state"]
            raise TimeoutError(f"{error}; it is {now}\n{self.logs(15)}") from None

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Mark the task as the UI does."""
        self.api("PATCH", f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}", json={"new_state": state})

    def clear_task(self, dag_id: str, run_id: str, task_id: str) -> None:
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": [task_id], "only_failed": False, "reset_dag_runs": True}
        self.api("POST", f"dags/{dag_id}/clearTaskInstances", json=body)

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete the run; Airflow requires that a running one is first marked as ended."""
        path = f"dags/{dag_id}/dagRuns/{quote(run_id)}"
        if self.run_state(dag_id, run_id) not in RUN_ENDED:
            self.api("PATCH", path, json={"state": "failed"})
        self.api("DELETE", path)

    def task_log(self, dag_id: str, run_id: str, task_id: str, attempt: int = 1, *, map_index: int = -1) -> str:
        """Return the task's log as the UI shows it: every event with its fields, one a line."""
        path = f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/logs/{attempt}"
        answer = self.api("GET", path, params={"map_index": map_index, "full_content": "true"})
        content = answer["content"]
        if isinstance(content, str):
            return content
        return "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in content)

    def log_file(self, dag_id: str, run_id: str, task_id: str, attempt: int = 1, *, map_index: int = -1) -> Path:
        """Return the path of the task's log on central."""
        parts = [f"dag_id={dag_id}", f"run_id={run_id}", f"task_id={task_id}"]
        if map_index >= 0:
            parts.append(f"map_index={map_index}")
        return self.log_folder.joinpath(*parts, f"attempt={attempt}.log")

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        path = f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.api("GET", path, params={"deserialize": "true", "map_index": map_index})["value"]

    def _wait_for_api_server(self, name: str = "api-server", url: str | None = None) -> None:
        # One client for all attempts: to make one loads the authorities, 40 ms of a core that the server needs.
        client = httpx.Client(base_url=url or self.url, timeout=5)

        def answers() -> bool:
            process = self._processes[name]
            if not process.is_running():
                raise RuntimeError(f"the API server ended at once\n{process.tail()}")
            try:
                return client.get("/api/v2/version").status_code == 200
            except httpx.TransportError:
                return False

        with client:
            wait_until(answers, timeout_s=240, what="the API server answers", every_s=0.2)

    def _is_healthy(self, client: httpx.Client) -> bool:
        for process in self._processes.values():
            if not process.is_running():
                raise RuntimeError(f"{process.name} ended at once\n{process.tail()}")
        try:
            health = client.get("/api/v2/monitor/health").json()
        except httpx.TransportError:
            return False
        return all(health[part]["status"] == "healthy" for part in ("scheduler", "dag_processor"))
