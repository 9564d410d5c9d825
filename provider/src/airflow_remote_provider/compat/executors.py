"""The base class of the executor: what differs between versions of Airflow is answered by it.

What the installed `BaseExecutor` has decides, not the number of a version.
"""

from __future__ import annotations

from airflow.executors.base_executor import BaseExecutor

if hasattr(BaseExecutor, "supported_workload_types"):
    from airflow_remote_provider.compat.executor_34 import VersionedExecutor
else:
    from airflow_remote_provider.compat.executor_33 import VersionedExecutor

__all__ = ["VersionedExecutor"]
