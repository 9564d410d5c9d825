"""`python -m airflow_remote_worker`."""

import sys

from airflow_remote_worker.cli import main

sys.exit(main())
