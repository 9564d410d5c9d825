"""Lists the routes, parameters and fields of the installed Airflow's Execution API that have no rule in `api/gateway/rules.py`.

Central refuses these to workers. Run the script in central's environment (`.work/central/bin/python scripts/uncovered.py`) after
an upgrade of Airflow; it exits with 1 if it finds any.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))


def main() -> int:
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__API_AUTH__JWT_SECRET": "x" * 64}
        from testkit.execution_api import lines

        *missing, summary = lines()
    print(*missing, summary, sep="\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
