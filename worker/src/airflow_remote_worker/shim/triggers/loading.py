"""Makes a trigger object from a workload: finds the class in the bundle or the runtime, and decodes its arguments.

User code runs on import. :mod:`.running` loads one trigger at a time: a module whose import waits for a connection must not be
seen half-imported by the next trigger.
"""

from __future__ import annotations

import importlib
import re
import sys
import zipimport
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_remote_worker.shim import compat

DAG_MODULE = re.compile(r"unusual_prefix_[0-9a-f]{40}_(?P<stem>.+?)\.(?P<name>.+)\Z")
"""Airflow's module name for a Dag file (`get_unique_dag_module_name`). The hash is of the path on the worker that deferred the
task, which may be another worker."""


class CannotLoad(Exception):
    """The trigger's class can't be found or used; the text says why."""


class Loader:
    """Makes triggers of one bundle, with the bundle's code of when the host started."""

    def __init__(self, *, bundle_path: str, bundle_name: str, needs_trigger: bool = False) -> None:
        """*needs_trigger*: only subclasses of Airflow's triggers are used, so that central can't have another class called."""
        self._needs_trigger = needs_trigger
        self._bundle_path = bundle_path
        self._bundle_name = bundle_name
        self._classes: dict[tuple[str, str], type[Any]] = {}
        self._dag_modules: dict[str, Any] = {}

    def prepare(self) -> None:
        """Put the bundle's root on `sys.path`, as the Task SDK does for a task."""
        if self._bundle_path not in sys.path:
            sys.path.append(self._bundle_path)

    def load(self, workload: Mapping[str, Any]) -> Any:
        """Return the trigger that *workload* describes.

        Raises:
            BaseException: any error of user code when it is imported or called.
        """
        trigger_class = self.find_class(workload["classpath"], dag_rel_path=workload["dag_rel_path"])
        return trigger_class(**decode_arguments(workload["kwargs"]))

    def find_class(self, classpath: str, *, dag_rel_path: str) -> type[Any]:
        """Return the class at *classpath*, which may be defined in the Dag file at *dag_rel_path*.

        Raises:
            CannotLoad: there is no such class.
            BaseException: any error of the module.
        """
        key = (classpath, dag_rel_path)
        if key not in self._classes:
            own = DAG_MODULE.match(classpath)
            archive = archive_of(Path(self._bundle_path), dag_rel_path)
            if own:
                found = self._of_dag_file(own, dag_rel_path)
            else:
                found = _of_module(classpath) if archive is None else _of_archive(archive, classpath)
            if not isinstance(found, type):
                raise CannotLoad(f"{classpath} is not a class")
            if self._needs_trigger and not _is_trigger(found):
                raise CannotLoad(f"{classpath} is not a trigger of Airflow, and only signed code runs here (trust.bundles)")
            if not callable(getattr(found, "run", None)):
                raise CannotLoad(f"{classpath} is not a trigger: it has no method `run`")
            self._classes[key] = found
        return self._classes[key]

    def _of_dag_file(self, name: re.Match[str], dag_rel_path: str) -> Any:
        stem = re.sub(r"[.-]", "_", Path(dag_rel_path).stem)
        if name["stem"] != stem:
            raise CannotLoad(
                f"the trigger's class {name['name']!r} is in a Dag file {name['stem']!r}, but the task's Dag is in "
                f"{dag_rel_path}; move the class into a module that both import"
            )
        if dag_rel_path not in self._dag_modules:
            self._dag_modules[dag_rel_path] = self._import_dag_file(dag_rel_path)
        return _attribute(self._dag_modules[dag_rel_path], name["name"], where=dag_rel_path)

    def _import_dag_file(self, dag_rel_path: str) -> Any:
        from airflow.dag_processing.dagbag import BundleDagBag

        path = str(Path(self._bundle_path, dag_rel_path))
        bag = BundleDagBag(
            dag_folder=path,
            safe_mode=False,
            load_op_links=False,
            bundle_path=Path(self._bundle_path),
            bundle_name=self._bundle_name,
        )
        module = sys.modules.get(compat.dag_module_name(path))
        if module is None or bag.import_errors:
            reasons = "\n".join(str(error) for error in bag.import_errors.values()) or "it defines no module"
            raise CannotLoad(f"the Dag file {dag_rel_path} could not be imported: {reasons}")
        return module


def _is_trigger(found: type[Any]) -> bool:
    from airflow.triggers.base import BaseTrigger

    return issubclass(found, BaseTrigger)


def decode_arguments(encoded: Any) -> dict[str, Any]:
    """Return the trigger's arguments as Airflow's triggerer decodes them.

    Raises:
        CannotLoad: they are not a mapping.
    """
    from airflow.sdk.serde import deserialize
    from airflow.serialization.decoders import smart_decode_trigger_kwargs
    from airflow.serialization.serialized_objects import BaseSerialization

    try:
        decoded = deserialize(encoded)
    except (ImportError, KeyError, AttributeError, TypeError):
        # The older encoding, which serde does not support.
        decoded = BaseSerialization.deserialize(encoded)
    if not isinstance(decoded, dict):
        raise CannotLoad(f"the trigger's arguments are {type(decoded).__name__}, not a mapping")
    return {str(name): smart_decode_trigger_kwargs(value) for name, value in decoded.items()}


def _of_module(classpath: str) -> Any:
    module_name, _, name = classpath.rpartition(".")
    if not module_name:
        raise CannotLoad(f"{classpath!r} is not an import path of a class: it names no module")
    return _attribute(importlib.import_module(module_name), name, where=module_name)


def archive_of(bundle: Path, dag_rel_path: str) -> str | None:
    """Return the zip archive that a Dag file is in (`dags.zip/dag.py`); None for an ordinary file."""
    for place in Path(bundle, dag_rel_path).parents:
        if place.suffix.lower() == ".zip" and place.is_file():
            return str(place)
    return None


def _of_archive(archive: str, classpath: str) -> Any:
    """Return the object that *classpath* names in the archive, or outside it if the archive has no such module.

    Two archives may have modules of the same name; Airflow, too, imports each archive's own module.
    """
    module_name, _, name = classpath.rpartition(".")
    top = module_name.partition(".")[0]
    if not module_name or zipimport.zipimporter(archive).find_spec(top) is None:
        return _of_module(classpath)
    for known, module in list(sys.modules.items()):
        if known.partition(".")[0] == top and not str(getattr(module, "__file__", None) or "").startswith(archive):
            del sys.modules[known]
    sys.path.insert(0, archive)
    try:
        module = importlib.import_module(module_name)
    finally:
        sys.path.remove(archive)
    return _attribute(module, name, where=f"{archive}, module {module_name},")


def _attribute(module: Any, dotted: str, *, where: str) -> Any:
    found = module
    for name in dotted.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise CannotLoad(f"{where} has no {dotted!r}; was the code changed since the task deferred?") from None
    return found
