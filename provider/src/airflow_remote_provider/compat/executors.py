"""The base class of the executor, which hides the differences between versions of Airflow.

The features of the installed `BaseExecutor` decide, not its version number.
"""

from __future__ import annotations

from airflow.executors.base_executor import BaseExecutor

if hasattr(BaseExecutor, "supported_workload_types"):
    from airflow_remote_provider.compat.executor_34 import VersionedExecutor
else:
    from airflow_remote_provider.compat.executor_33 import VersionedExecutor

__all__ = ["VersionedExecutor"]
