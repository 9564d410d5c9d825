"""The wire protocol of the Remote Executor for Apache Airflow.

Both ends import this package. It does no I/O and reads no clock, except :mod:`.conformance`. Start with :mod:`.states`, then
:mod:`.messages`.
"""
