"""Lets a callback run only if it is a function or a class of the bundle's own code. Used where a site requires signed code.

Central names a callback by an import path, and gives its arguments. Without this check it could name any function of Python, such
as `os.system`, also by way of a module of the bundle that has imported it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

DAG_FILE = "unusual_prefix_"
"""Airflow's module name for a Dag file begins so."""

Execute = Callable[..., "tuple[bool, str | None]"]


class Foreign(Exception):
    """The callback is not of the bundle; the text says why."""


def only(execute: Execute, bundle_path: str) -> Execute:
    """Return *execute*, Airflow's `execute_callback`, for callbacks of the code in *bundle_path* alone."""

    def execute_own(*, callback_path: str, dag_rel_path: Any, log: Any, **arguments: Any) -> tuple[bool, str | None]:
        try:
            require_own(callback_path, str(dag_rel_path), bundle_path)
        except Exception as error:
            text = str(error) if isinstance(error, Foreign) else f"it can't be imported: {type(error).__name__}: {error}"
            refused = f"the callback {callback_path} is not run: {text}"
            log.error(refused)
            return False, refused
        return execute(callback_path=callback_path, dag_rel_path=dag_rel_path, log=log, **arguments)

    return execute_own


def require_own(path: str, dag_rel_path: str, bundle_path: str) -> None:
    """Import the callback's module, if it is a file of the bundle, and check that the callback is defined in the bundle.

    Raises:
        Foreign: it isn't.
        Exception: any error of the module.
    """
    root = Path(bundle_path).resolve()
    module_name, _, name = path.rpartition(".")
    if module_name.startswith(DAG_FILE):
        module = _of_dag_file(module_name, root / dag_rel_path, root)
    else:
        # Of the first package alone: it is found without any import, and what is below it comes from its own directory.
        top = module_name.partition(".")[0]
        spec = importlib.util.find_spec(top) if top else None
        if spec is None or not _is_within(spec, root):
            raise Foreign(_text(f"its module {module_name or '(none)'!r} is not a file of the bundle"))
        module = importlib.import_module(module_name)
    found = getattr(module, name, None)
    home = getattr(found, "__module__", None) if isinstance(found, type) or hasattr(found, "__code__") else None
    defined_in = module if home == module.__name__ else sys.modules.get(str(home))
    if defined_in is not module and not (defined_in and _is_file(getattr(defined_in, "__file__", None), root)):
        raise Foreign(_text(f"{name!r} is not a function or a class that the bundle defines"))


def _text(cause: str) -> str:
    return f"{cause}, and this worker uses only signed code (trust.bundles); wrap it in a function of the bundle"


def _of_dag_file(module_name: str, file: Path, root: Path) -> ModuleType:
    if not _is_file(str(file), root):
        raise Foreign(_text("its Dag file is not a file of the bundle"))
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise Foreign(_text("its Dag file is no Python file"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)  # Airflow does the same once more
    return module


def _is_within(spec: ModuleSpec, root: Path) -> bool:
    places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.has_location else [])]
    return bool(places) and all(_is_file(place, root) for place in places)


def _is_file(path: str | None, root: Path) -> bool:
    return path is not None and root in Path(path).resolve().parents
