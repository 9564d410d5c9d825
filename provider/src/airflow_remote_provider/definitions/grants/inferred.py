"""Finds the names in a task's definition: fields such as `ssh_conn_id`, and `conn`, `var` and `xcom_pull` in its templates.

Works on a task as its Dag file made it, and on one that Airflow has read back from its database. The latter only has its
templated fields (and of those the first 4,096 characters), so :mod:`..policies` uses the former.
Names that are only known when the task runs (`conn[params.site]`, `Variable.get(…)` in a function) can't be inferred.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

from airflow_remote_provider.definitions.grants import GrantKind
from airflow_remote_provider.definitions.grants.fields import CONNECTION_FIELD, DAG_FIELD, DEEPEST, TRIGGERED_DAG_FIELD, texts

NOT_FIELDS = frozenset({"executor_config", "params", "default_args", "inlets", "outlets", "task_group", "dag"})
CALLBACKS = ("on_execute_callback", "on_failure_callback", "on_retry_callback", "on_skipped_callback", "on_success_callback")
MAIL = "smtp_default"
"""The connection of Airflow's own mail about a failed task, which is sent from where the task ran."""

KINDS_OF_FIELDS = (
    (CONNECTION_FIELD, GrantKind.CONNECTIONS),
    (DAG_FIELD, GrantKind.DAGS),
    (TRIGGERED_DAG_FIELD, GrantKind.TRIGGER_DAGS),
)
"""The kinds that a field's name grants. An operator that triggers a Dag also queries the run that it triggered."""

Names = dict[GrantKind, set[str]]


def of_task(task: Any) -> Names:
    """Return every name in the definition of *task*, by kind. *task* is of the Task SDK or serialized, mapped or not."""
    found: Names = defaultdict(set)
    _of_object(task, found, own_dag=getattr(task, "dag_id", "") or "", depth=0)
    if getattr(task, "email", None) and (task.email_on_failure or task.email_on_retry):
        found[GrantKind.CONNECTIONS].add(MAIL)
    for group in _mapped_groups(task):
        _of_fields(_entries(group._expand_input.value), (), found, own_dag="", depth=1)
    outlets = set(_assets(getattr(task, "outlets", None)))
    found[GrantKind.ASSETS] |= outlets.union(_assets(getattr(task, "inlets", None)))
    found[GrantKind.ASSET_WRITES] |= outlets
    return {kind: names for kind, names in found.items() if names}


def _assets(named: Iterable[Any] | None) -> Iterator[str]:
    """Yield the names and URIs in a task's inlets or outlets: assets, references to assets, aliases."""
    for asset in named or ():
        yield from (name for name in (getattr(asset, "name", None), getattr(asset, "uri", None)) if isinstance(name, str))


def of_arguments(arguments: object) -> Names:
    """Return the names in the arguments of a callback, except in the context: its `conf` comes from the user who triggered the
    run."""
    if isinstance(arguments, Mapping):
        arguments = {name: value for name, value in arguments.items() if name != "context"}
    found: Names = defaultdict(set)
    _of_fields(_entries(arguments), ("kwargs",), found, own_dag="", depth=0)
    _of_value(arguments, found, own_dag="", templated=True, depth=0)
    return {kind: names for kind, names in found.items() if names}


def _of_object(thing: Any, found: Names, *, own_dag: str, depth: int) -> None:
    """Add the names in a task, a notifier, or another object with `template_fields`."""
    _of_fields(_fields(thing), tuple(getattr(thing, "template_fields", ())), found, own_dag=own_dag, depth=depth)


def _fields(thing: Any) -> Iterator[tuple[str, Any]]:
    partial = getattr(thing, "partial_kwargs", None)
    if partial is not None:  # mapped: no instance exists yet
        expanded = getattr(getattr(thing, thing._expand_input_attr), "value", None)
        yield from _filled_in_later(thing, {*partial, *(expanded if isinstance(expanded, Mapping) else ())})
        yield from partial.items()
        if thing._expand_input_attr == "op_kwargs_expand_input":  # the arguments of a function, which are all rendered
            yield "op_kwargs", expanded
        else:
            yield from _entries(expanded)
        return
    for owner in reversed(type(thing).__mro__):
        yield from ((name, value) for name, value in vars(owner).items() if CONNECTION_FIELD.fullmatch(name))
    yield from getattr(thing, "__dict__", {}).items()


def _filled_in_later(task: Any, given: set[str]) -> Iterator[tuple[str, Any]]:
    """Yield the values that `__init__` gets for missing arguments: from `default_args`, or defaults such as
    `ssh_conn_id="ssh_default"`."""
    operator = getattr(task, "operator_class", None)
    if not inspect.isclass(operator):  # serialized
        return
    owners = (task.dag, task.task_group)
    defaults = {name: value for owner in owners for name, value in (getattr(owner, "default_args", None) or {}).items()}
    for owner in operator.__mro__:
        init = vars(owner).get("__init__")
        for name, parameter in inspect.signature(init).parameters.items() if init else ():
            if name not in given and (name in defaults or CONNECTION_FIELD.fullmatch(name)):
                yield name, defaults.get(name, parameter.default)


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keyword arguments over which a task is expanded: a dict, or a list of dicts."""
    if isinstance(value, Mapping):
        yield from ((name, item) for name, item in value.items() if isinstance(name, str))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _entries(item)


def _of_fields(fields: Iterable[tuple[str, Any]], templated: tuple[str, ...], found: Names, *, own_dag: str, depth: int) -> None:
    for name, value in fields:
        if name.startswith("_") or name in NOT_FIELDS:
            continue
        if name in CALLBACKS:
            for callback in value if isinstance(value, (list, tuple)) else (value,):
                _of_callback(callback, found, own_dag=own_dag, depth=depth + 1)
            continue
        _of_name(name, value, found)
        _of_value(value, found, own_dag=own_dag, templated=name in templated, depth=depth + 1)


def _of_callback(callback: Any, found: Names, *, own_dag: str, depth: int) -> None:
    """Add the names in a notifier, its bound method, or a partial function."""
    if depth > DEEPEST:
        return
    if isinstance(callback, partial):
        _of_fields(_entries(callback.keywords), (), found, own_dag=own_dag, depth=depth)
        _of_value(callback.args, found, own_dag=own_dag, templated=False, depth=depth)
        _of_callback(callback.func, found, own_dag=own_dag, depth=depth + 1)
    elif inspect.ismethod(callback):
        _of_callback(callback.__self__, found, own_dag=own_dag, depth=depth + 1)
    elif _has_templates(callback):
        _of_object(callback, found, own_dag=own_dag, depth=depth)


def _of_name(name: str, value: Any, found: Names) -> None:
    """Add *value* as a name of the kind that the *name* of its field says."""
    for field, kind in KINDS_OF_FIELDS:
        if field.fullmatch(name):
            found[kind] |= {text for text in texts(value) if text and not _is_template(text)}


def _of_value(value: Any, found: Names, *, own_dag: str, templated: bool, depth: int) -> None:
    if depth > DEEPEST:
        return
    if isinstance(value, str):
        if templated and _is_template(value):
            _of_template(value, found, own_dag)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if isinstance(name, str):
                _of_name(name, item, found)
            _of_value(item, found, own_dag=own_dag, templated=templated, depth=depth + 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            _of_value(item, found, own_dag=own_dag, templated=templated, depth=depth + 1)
    elif _has_templates(value) and (templated or _is_notifier(value)):  # Airflow renders these, too
        _of_object(value, found, own_dag=own_dag, depth=depth + 1)


def _has_templates(value: Any) -> bool:
    return isinstance(getattr(value, "template_fields", None), (list, tuple))


def _is_notifier(value: Any) -> bool:
    """Return whether a task with *value* in a field calls it with its context, as `HITLOperator(notifiers=[…])` does."""
    return callable(getattr(value, "notify", None)) and not inspect.isclass(value)


def _mapped_groups(task: Any) -> Iterable[Any]:
    walk = getattr(task, "iter_mapped_task_groups", None)
    return walk() if walk is not None and getattr(task, "task_group", None) is not None else ()


# Templates


def _is_template(text: str) -> bool:
    return "{{" in text or "{%" in text


@cache
def _environment() -> Environment:
    return Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"])  # only parses, never renders


def _of_template(text: str, found: Names, own_dag: str) -> None:
    try:
        tree = _environment().parse(text)
    except TemplateSyntaxError:
        return  # rendering it fails, too, with an error
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        _of_path(_path(node), found)
    for call in tree.find_all(nodes.Call):
        path = _path(call.node)
        arguments = {keyword.key: keyword.value for keyword in call.kwargs}
        if path[-1:] == ("get",):
            name = call.args[0] if call.args else arguments.get("key", arguments.get("conn_id"))
            if isinstance(name, nodes.Const):
                _of_path((*path[:-1], str(name.value)), found)
        elif path[-1:] == ("xcom_pull",):
            _of_pull(dict(zip(PULLS, call.args)) | arguments, found, own_dag)  # noqa: B905 (a call may give fewer)


def _of_path(path: tuple[str, ...], found: Names) -> None:
    if len(path) == 2 and path[0] == "conn" and path[1] != "get":
        found[GrantKind.CONNECTIONS].add(path[1])
    elif len(path) == 3 and path[0] == "var" and path[1] in ("value", "json") and path[2] != "get":
        found[GrantKind.VARIABLES].add(path[2])


PULLS = ("task_ids", "dag_id", "key", "include_prior_dates")
"""The arguments of `xcom_pull` that can be given by position."""
OWN_RUN = frozenset({("run_id",), ("dag_run", "run_id"), ("ti", "run_id"), ("task_instance", "run_id")})


def _of_pull(arguments: Mapping[str, nodes.Expr], found: Names, own_dag: str) -> None:
    dag = arguments.get("dag_id", nodes.Const(None))
    if not isinstance(dag, nodes.Const):
        return
    named = dag.value if isinstance(dag.value, str) else own_dag
    if named and (named != own_dag or _leaves_own_run(arguments)):
        found[GrantKind.XCOMS_OF].add(named)


def _leaves_own_run(arguments: Mapping[str, nodes.Expr]) -> bool:
    earlier, run = arguments.get("include_prior_dates"), arguments.get("run_id")
    if isinstance(earlier, nodes.Const) and earlier.value:
        return True
    if run is None or (isinstance(run, nodes.Const) and run.value is None):
        return False
    return _path(run) not in OWN_RUN


def _path(node: nodes.Node) -> tuple[str, ...]:
    """Return `("var", "json", "a")` for `var.json.a` and `var.json["a"]`; empty if the node contains anything but names."""
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        inner, last = _path(node.node), node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        inner, last = _path(node.node), node.arg.value
    else:
        return ()
    return (*inner, last) if inner else ()
