"""Enrols simulated workers through the ledger, and prints their credentials as a JSON list. Runs in central's environment.

python -m bench.fleet_seed PREFIX COUNT
"""

from __future__ import annotations

import json
import sys

from airflow_remote_protocol.messages import Enrolment
from airflow_remote_provider import compat
from airflow_remote_provider.ledger import credentials
from airflow_remote_provider.ledger.credentials import NewToken

QUEUE = "fleet"
"""Theirs alone: a simulated worker can't run anything."""
MARK = "credentials: "
"""Airflow's own start-up may print lines before."""


def main() -> int:
    prefix, count = sys.argv[1], int(sys.argv[2])
    with compat.transaction() as session:
        token, _ = credentials.create_token(session, NewToken([QUEUE], uses=count))
        session.flush()
        made = [credentials.enrol(session, token, Enrolment(f"{prefix}-{number}")).credential for number in range(count)]
    print(MARK + json.dumps(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
