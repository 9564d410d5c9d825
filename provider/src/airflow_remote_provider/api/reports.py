"""The faults of all parts of this package's APIs in one API process: one object, so that each cause is logged once."""

from __future__ import annotations

import logging

from airflow_remote_provider.faults import Faults

faults = Faults(logging.getLogger(__name__), "The API of the Remote Executor")
