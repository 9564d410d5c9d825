"""Finds the names that a Dag file reads whenever it is loaded, such as `Variable.get("x")` outside of tasks (ADR 0036).

A worker loads the file for each of its tasks. Only the file's syntax tree is read; no code runs. Import runs the module's own
statements, the bodies of classes, the bodies of functions that those call by name, and the bodies of `@dag` and `@task_group`
functions; it does not run the function of a task. A name counts if it is a text, or a constant of the module that is a text; any
other name must be declared.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache

from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.definitions.grants.inferred import Names

READS = {("Variable", "get"): GrantKind.VARIABLES, ("Connection", "get"): GrantKind.CONNECTIONS}
"""By class and method."""
METHODS_OF_ANY = {
    "get_connection": GrantKind.CONNECTIONS,
    "get_hook": GrantKind.CONNECTIONS,
    "get_connection_from_secrets": GrantKind.CONNECTIONS,
    "get_variable_from_secrets": GrantKind.VARIABLES,
}
"""By method, of any hook or class."""
NAMED = frozenset({"key", "conn_id"})
"""Keyword arguments that hold the name."""
RUN_ON_IMPORT = frozenset({"dag", "task_group"})
"""Decorators whose functions run while the file is loaded."""
OF_TASKS = frozenset({"task", "asset", "setup", "teardown"})
"""Decorators whose functions run in a task."""
LARGEST = 2_000_000
"""Most characters. A larger file is generated code, and would take a second to parse."""

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@lru_cache(maxsize=8)
def of_source(source: str) -> Names:
    """Return the names that loading *source* reads, by kind; empty if it is not Python, or too large."""
    if len(source) > LARGEST:
        return {}
    try:
        return _Module(ast.parse(source)).names()
    except (SyntaxError, ValueError, RecursionError):
        return {}  # Airflow reports the error


class _Module:
    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._aliases: dict[str, str] = {}
        """Names that `from … import name as alias` renames, by alias."""
        self._constants: dict[str, str | None] = {}
        """Texts of the module's constants, by name; None: assigned several times, or not a text."""
        self._functions: dict[str, FunctionNode] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                self._aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
            elif isinstance(node, FunctionNode):
                self._functions.setdefault(node.name, node)
        for statement in tree.body:
            self._note_constant(statement)

    def names(self) -> Names:
        found: Names = defaultdict(set)
        seen: set[str] = set()
        waiting: list[ast.AST] = [self._tree]
        while waiting:
            for node in _run_on_import(waiting.pop()):
                if isinstance(node, FunctionNode) and any(self._last(part) in RUN_ON_IMPORT for part in node.decorator_list):
                    waiting += self._entered(node.name, node, seen)
                elif isinstance(node, ast.Call):
                    self._note_read(node, found)
                    called = self._functions.get(node.func.id) if isinstance(node.func, ast.Name) else None
                    if called and not any(self._is_of_a_task(part) for part in called.decorator_list):
                        waiting += self._entered(called.name, called, seen)
        return dict(found)

    def _entered(self, name: str, function: FunctionNode, seen: set[str]) -> list[ast.AST]:
        if name in seen:
            return []
        seen.add(name)
        return list(function.body)

    def _is_of_a_task(self, decorator: ast.AST) -> bool:
        """Return whether a decorator such as `@task`, `@task.docker(…)` or `@sdk.task` makes the function that of a task."""
        while isinstance(decorator, (ast.Call, ast.Attribute)):
            if self._last(decorator) in OF_TASKS:
                return True
            decorator = decorator.func if isinstance(decorator, ast.Call) else decorator.value
        return self._last(decorator) in OF_TASKS

    def _last(self, node: ast.AST) -> str:
        """Return `c` for `a.b.c`, `c` and `c(…)`, under its original name if it was imported as an alias; else empty."""
        if isinstance(node, ast.Call):
            node = node.func
        if isinstance(node, ast.Attribute):
            return node.attr
        return self._aliases.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    def _note_constant(self, statement: ast.stmt) -> None:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        for target in targets:
            if isinstance(target, ast.Name):
                value = getattr(statement, "value", None)
                text = value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
                self._constants[target.id] = None if target.id in self._constants else text

    def _note_read(self, call: ast.Call, found: Names) -> None:
        if not isinstance(call.func, ast.Attribute):
            return
        method = call.func.attr
        kind = READS.get((self._last(call.func.value), method)) or METHODS_OF_ANY.get(method)
        if kind is None:
            return
        named = [keyword.value for keyword in call.keywords if keyword.arg in NAMED] or call.args[:1]
        for name in named:
            text = name.value if isinstance(name, ast.Constant) else None
            if isinstance(name, ast.Name):
                text = self._constants.get(name.id)
            if isinstance(text, str) and text:
                found[kind].add(text)


def _run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield *node* and the nodes below it that run on import: of functions, only the decorators and defaults."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, FunctionNode):
            waiting += [*node.decorator_list, *node.args.defaults, *(one for one in node.args.kw_defaults if one)]
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)
