"""Creates the hostile benchmark's workers, jobs and grants in central's database; prints the credentials as one line of JSON.

python -m bench.hostile_seed OTHERS

Runs in central's environment. Each worker has its own queue and one job, which belongs to no scheduler. The hostile worker has
the grants of a careless administrator: it can read all variables and set any.
"""

from __future__ import annotations

import json
import sys

from airflow.models import Variable
from airflow.utils.session import create_session
from airflow_remote_protocol.messages import Enrolment
from airflow_remote_provider import compat
from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.ledger import credentials, jobs, queue_policy
from airflow_remote_provider.ledger.credentials import NewToken

from bench.fleet_seed import unknown_job
from bench.hostile_client import HOSTILE, MARK

LARGE_VARIABLE = "large"
LARGE_BYTES = 16 * 1024 * 1024


def main() -> int:
    names = [HOSTILE, *(f"other-{number}" for number in range(int(sys.argv[1])))]
    with create_session() as session:
        Variable.set(LARGE_VARIABLE, "x" * LARGE_BYTES, session=session)
    made = {name: _enrol(name) for name in names}
    with compat.transaction() as session:
        queue_policy.allow(session, HOSTILE, {GrantKind.VARIABLES: ["*"], GrantKind.WRITES: ["*"]}, by="bench")
    print(MARK + json.dumps(made))
    return 0


def _enrol(name: str) -> str:
    """Enrol the worker *name* on a queue of that name, with one job in it; return its credential."""
    with compat.transaction() as session:
        token, _ = credentials.create_token(session, NewToken([name]))
        session.flush()
        credential = credentials.enrol(session, token, Enrolment(name)).credential
        jobs.enqueue(session, [unknown_job(name)])
    return str(credential)


if __name__ == "__main__":
    sys.exit(main())
