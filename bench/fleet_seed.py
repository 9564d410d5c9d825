"""Enrols simulated workers in the ledger and prints their credentials as a JSON list. Runs in central's environment.

python -m bench.fleet_seed PREFIX COUNT [--with-job]

With `--with-job` their queue is PREFIX; it has a job for each worker, which belongs to no scheduler and may read a variable.
"""

from __future__ import annotations

import json
import sys
import uuid

from airflow_remote_protocol.messages import Enrolment, JobKind
from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.ledger import credentials, jobs, queue_policy
from airflow_remote_provider.ledger.credentials import NewToken

QUEUE = "fleet"
"""Used only by simulated workers, which can't run tasks."""
MARK = "credentials: "
"""The prefix of the output line: Airflow's start-up can print lines before it."""


def main() -> int:
    prefix, count = sys.argv[1], int(sys.argv[2])
    with_job = "--with-job" in sys.argv
    with compat.transaction() as session:
        token, _ = credentials.create_token(session, NewToken([prefix if with_job else QUEUE], uses=count))
        session.flush()
        made = [credentials.enrol(session, token, Enrolment(f"{prefix}-{number}")).credential for number in range(count)]
        if with_job:
            jobs.enqueue(session, [unknown_job(prefix) for _ in made])
            queue_policy.allow(session, prefix, {GrantKind.VARIABLES: ["bench"]}, by="bench")
    print(MARK + json.dumps(made))
    return 0


def unknown_job(queue: str) -> jobs.NewJob:
    """Return a job whose task Airflow does not know: Airflow neither ends it nor waits for it."""
    return jobs.NewJob(
        job_id=str(uuid.uuid4()),
        kind=JobKind.TASK,
        queue=queue,
        team=None,
        priority=1,
        slots=1,
        owner="bench",
        ti_id=None,
        dag_id="bench",
        run_id="bench",
        task_id="bench",
        map_index=-1,
        try_number=1,
        workload="{}",
        log_path=f"bench/{uuid.uuid4()}.log",
        lost_after_s=3600.0,
    )


if __name__ == "__main__":
    sys.exit(main())
