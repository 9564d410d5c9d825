"""Hosts one task beside the Task SDK: runs in the task runtime's interpreter, never in the worker's.

May import the standard library, what the Task SDK depends on (msgspec, httpx or httpx2, psutil, attrs, structlog), airflow, the
protocol and itself.
"""
