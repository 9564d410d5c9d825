"""Starts what tests, demo and benchmark need: a real Postgres, a real central, real workers, each in its own processes.

Nothing here is shipped. Every module except `airflow` (which needs httpx) uses only the standard library.
"""
