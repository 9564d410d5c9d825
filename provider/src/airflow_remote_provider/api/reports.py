"""Where all parts of our API report what fails in this API process: one place, so that one cause is logged once."""

from __future__ import annotations

import logging

from airflow_remote_provider.faults import Faults

faults = Faults(logging.getLogger(__name__), "The API of the Remote Executor")
