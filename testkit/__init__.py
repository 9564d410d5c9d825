"""What the tests, the demo and the benchmark start: a real Postgres, a real central, real workers, each in its own processes.

Nothing here is shipped. All but `airflow` (which needs httpx) gets by with the standard library.
"""
