"""The wire protocol of the Remote Executor for Apache Airflow.

Both ends import this package; it does no I/O and reads no clock. Read :mod:`.states` first, then :mod:`.messages`.
"""
