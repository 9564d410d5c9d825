"""Finds the headers that the Task SDK's client reads of an answer, in the SDK's own source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PARTS = ("api", "execution_time")
"""The directories of `airflow/sdk` that call the Execution API."""


def headers_read(sdk: Path) -> set[str]:
    """Return the names, in lower case, of the response headers that the code in *sdk* (`…/airflow/sdk`) reads."""
    return {
        name.lower() for part in PARTS for path in (sdk / part).rglob("*.py") for name in _read_in(ast.parse(path.read_text()))
    }


def _read_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            holder, name = node.value, node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
            holder, name = node.func.value, node.args[0]
        else:
            continue
        is_answers = isinstance(holder, ast.Attribute) and holder.attr == "headers" and not _is_request(holder.value)
        if is_answers and isinstance(name, ast.Constant) and isinstance(name.value, str):
            yield name.value


def _is_request(holder: ast.expr) -> bool:
    return ast.unparse(holder).rpartition(".")[2] == "request"
