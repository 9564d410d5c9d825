"""Runtimes: the environments of tasks, made on central from its own versions, one tree for each platform.

:mod:`.build` makes and publishes one; `airflow remote runtimes build` calls it. Workers install nothing (ADR 0043).
"""
