"""Reads Airflow's and our tables directly from Postgres: the API process is measured, so the benchmark must not call it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg2
from sqlalchemy.engine import make_url

from testkit.processes import wait_until

RUN_ENDED = ("success", "failed")


@dataclass(frozen=True)
class TaskTimes:
    """One task instance, in seconds since the epoch. *code* is when the first line of its code ran, if the task returned it."""

    task_id: str
    queued: float
    started: float
    ended: float
    code: float | None


class Database:
    """Airflow's database, and the statements that were sent to it."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self._name = parsed.database or ""
        self._where = {"host": parsed.host, "port": parsed.port, "user": parsed.username, "password": parsed.password}
        self._connection: Any = None
        self._statistics: Any = None

    def connect(self) -> None:
        self._connection = psycopg2.connect(dbname=self._name, **self._where)
        self._connection.autocommit = True
        # Connected to another database, so that our own queries are not counted.
        self._statistics = psycopg2.connect(dbname="postgres", **self._where)
        self._statistics.autocommit = True
        self._query(self._statistics, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    def close(self) -> None:
        self._connection.close()
        self._statistics.close()

    def wait_for_run(self, dag_id: str, run_id: str, *, timeout_s: float) -> str:
        """Wait until the Dag run has ended; return its state."""
        query = "SELECT state FROM dag_run WHERE dag_id = %s AND run_id = %s AND state IN %s"

        def ended() -> str | None:
            rows = self._query(self._connection, query, (dag_id, run_id, RUN_ENDED))
            return str(rows[0][0]) if rows else None

        return str(wait_until(ended, timeout_s=timeout_s, what=f"{dag_id} ends", every_s=0.25))

    def task_times(self, dag_id: str, run_id: str) -> list[TaskTimes]:
        rows = self._query(
            self._connection,
            """
            SELECT ti.task_id, extract(epoch FROM ti.queued_dttm), extract(epoch FROM ti.start_date),
                   extract(epoch FROM ti.end_date), x.value
            FROM task_instance ti LEFT JOIN xcom x USING (dag_id, run_id, task_id, map_index)
            WHERE ti.dag_id = %s AND ti.run_id = %s AND (x.key = 'return_value' OR x.key IS NULL)
            """,
            (dag_id, run_id),
        )
        return [TaskTimes(task, *map(float, times), None if code is None else float(code)) for task, *times, code in rows]

    def acceptance_times(self, dag_id: str, run_id: str) -> list[float]:
        """Return the seconds from the enqueueing transaction to the acceptance, for each job of a Dag run."""
        rows = self._query(
            self._connection,
            "SELECT extract(epoch FROM accepted_at - queued_at) FROM remote_job WHERE dag_id = %s AND run_id = %s",
            (dag_id, run_id),
        )
        return [float(seconds) for (seconds,) in rows]

    def forget_statements(self) -> None:
        """Reset the counts to zero."""
        self._query(self._statistics, "SELECT pg_stat_statements_reset()")

    def statements(self) -> dict[str, int]:
        """Return every statement that was sent to this database since :meth:`forget_statements`, and its count."""
        rows = self._query(
            self._statistics,
            """
            SELECT s.query, s.calls FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = %s
            """,
            (self._name,),
        )
        counts: dict[str, int] = {}
        for query, calls in rows:
            counts[query] = counts.get(query, 0) + int(calls)
        return counts

    def _query(self, connection: Any, query: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(query, arguments)
            return list(cursor.fetchall()) if cursor.description else []
