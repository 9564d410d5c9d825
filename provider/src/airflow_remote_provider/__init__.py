"""The Remote Executor for Apache Airflow: the part that runs in central. Start with :mod:`.executor`, then :mod:`.ledger`."""

__version__ = "0.1.0"
