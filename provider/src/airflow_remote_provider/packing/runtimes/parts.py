"""What of central's own files belongs to a runtime: the plugins folder, `airflow_local_settings`, and the variables of tasks."""

from __future__ import annotations

import json
import re
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from airflow_remote_provider import compat
from airflow_remote_provider.packing.runtimes.errors import CannotBuild
from airflow_remote_provider.packing.scan import Limits, Moved, Unpublishable, scan

FORMAT = 1
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}\Z")
SECRETS = re.compile(
    r"AIRFLOW_(CONN|VAR)_|AIRFLOW__.*_(SECRET|CMD)\Z|AIRFLOW__.*(FERNET_KEY|SQL_ALCHEMY_CONN|JWT)", re.IGNORECASE
)
MOST_VARIABLES = 200
LONGEST_VALUE = 4096


def check_variables(env: Mapping[str, str]) -> None:
    """Check variables for the environment of tasks. A runtime's tree is no place for secrets: every worker may fetch it.

    Raises:
        CannotBuild: names one that is refused.
    """
    if len(env) > MOST_VARIABLES:
        raise CannotBuild(f"a runtime may set {MOST_VARIABLES} variables, not {len(env)}; leave some out")
    for name, value in env.items():
        if not VARIABLE.match(name):
            raise CannotBuild(f"{name[:50]!r} is not the name of a variable; write letters, digits and _")
        if len(value) > LONGEST_VALUE or "\0" in value:
            raise CannotBuild(f"the value of {name} must have at most {LONGEST_VALUE} characters, and no NUL")
        if SECRETS.match(name) or (compat.hides_value_of(name) and name.lower() != "no_proxy"):
            raise CannotBuild(
                f"{name} looks like a secret, which a runtime must not contain: every worker may fetch it. Use a connection or "
                "variable of Airflow, or set it at the site in runtime.env"
            )


def add_parts(tree: Path, limits: Limits) -> None:
    """Copy central's plugins and `airflow_local_settings` into the directory of a runtime.

    Raises:
        CannotBuild: a file can't be read or can't travel.
    """
    plugins = compat.plugins_folder()
    if plugins.is_dir():
        _copy(plugins, tree / "plugins", "the plugins folder", limits)
    settings = compat.local_settings_place()
    if settings is None or _is_of_a_package(settings):
        return
    if settings.is_dir():
        _copy(settings, tree / "config" / settings.name, "the package airflow_local_settings", limits)
    else:
        (tree / "config").mkdir(exist_ok=True)
        try:
            shutil.copyfile(settings, tree / "config" / settings.name)
        except OSError as error:
            raise CannotBuild(f"{settings} can't be read: {error.strerror or error}; correct its permissions") from None


def write_about(path: Path, about: Mapping[str, object]) -> None:
    """Write `runtime.json` or `release.json`, from which a worker knows what the tree is."""
    text = json.dumps({"format": FORMAT, **about}, indent=1, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def _copy(source: Path, target: Path, what: str, limits: Limits) -> None:
    """Copy what a scan of *source* finds: not what its `.remoteignore` names, and links as what they point to."""
    try:
        tree, state = scan(source, limits=limits)
        for entry in tree.entries:
            copy = target / entry.path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(state.seen[entry.path].place, copy)
    except (Unpublishable, Moved, OSError) as error:
        raise CannotBuild(f"{what} {source} can't be part of the runtime: {error}") from None


def _is_of_a_package(path: Path) -> bool:
    """Return whether *path* is in this environment's packages: then a requirement brings it."""
    places = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib")}
    real = path.resolve()
    return any(place in real.parents for place in places)
