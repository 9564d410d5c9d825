"""The Remote Executor for Apache Airflow: what runs in central. Start reading at :mod:`.executor`, then :mod:`.ledger`."""

__version__ = "0.1.0"
