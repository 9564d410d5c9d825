"""Hosts one task with the Task SDK. Runs in the task runtime's interpreter, never in the worker's.

May import the standard library, the Task SDK's dependencies (msgspec, httpx or httpx2, psutil, attrs, structlog), airflow, the
protocol and itself.
"""
