"""Passes central's settings for tasks to Airflow before it is imported, unless the site has set the same option.

The site's own settings are in the environment (`runtime.env` of the worker) or in the `airflow.cfg` of the worker's Airflow home.
At least everything that either side wants masked is masked. The protocol's `task_settings` lists central's options.
"""

from __future__ import annotations

import configparser
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from airflow_remote_worker.local import job_files

OFF = frozenset({"false", "f", "no", "n", "off", "0"})


OLD_NAMES = {("api", "base_url"): ("webserver", "base_url")}
"""Older names of these options that Airflow still reads from a site's settings."""


def apply() -> None:
    """Set the environment variables for the settings that the daemon has passed. Call it once per process."""
    passed = os.environ.pop(job_files.TASK_SETTINGS, "")
    if passed:
        for variable, value in combined(json.loads(passed), read_site_settings(os.environ)).items():
            try:
                os.environ[variable] = value
            except UnicodeEncodeError as error:
                print(f"central's {variable} can't be set in this machine's locale: {error}", file=sys.stderr)


def combined(central: Mapping[str, str], site: Mapping[tuple[str, str], str]) -> dict[str, str]:
    """Return the environment variables to set. *central* is by `section.option`, *site* by section and option."""
    variables = {}
    for name, value in central.items():
        section, _, option = name.partition(".")
        own = site.get((section, option))
        if own is None:
            variables[variable_of(section, option)] = value
        elif name in UNIONS:
            variables[variable_of(section, option)] = UNIONS[name](value, own)
    return variables


def read_site_settings(environ: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Return the site's own settings by section and option: its environment, then its `airflow.cfg`."""
    own: dict[tuple[str, str], str] = {}
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    home = os.path.expandvars(environ.get("AIRFLOW_HOME", "~/airflow"))
    path = Path(environ.get("AIRFLOW_CONFIG") or Path(home) / "airflow.cfg").expanduser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        print(f"{path} can't be read ({error}); central's settings are used", file=sys.stderr)
    for section in parser.sections():
        own |= {(section.lower(), option): value for option, value in parser.items(section)}
    for variable, value in environ.items():
        parts = variable.split("__", 2)
        if len(parts) == 3 and parts[0] == "AIRFLOW":
            own[parts[1].lower(), parts[2].lower()] = value
    for new, old in OLD_NAMES.items():
        if old in own:
            own.setdefault(new, own[old])
    return own


def variable_of(section: str, option: str) -> str:
    return f"AIRFLOW__{section.upper()}__{option.upper()}"


def _all_names(central: str, site: str) -> str:
    names = [name.strip() for name in f"{central},{site}".split(",")]
    return ",".join(dict.fromkeys(name for name in names if name))


def _either_on(central: str, site: str) -> str:
    return "False" if central.strip().lower() in OFF and site.strip().lower() in OFF else "True"


def _smaller(central: str, site: str) -> str:
    try:
        return str(min(int(central), int(site)))
    except ValueError:  # the site's value is invalid, and Airflow reports that
        return site


UNIONS: dict[str, Callable[[str, str], str]] = {
    "core.sensitive_var_conn_names": _all_names,
    "core.hide_sensitive_var_conn_fields": _either_on,
    "logging.min_length_masked_secret": _smaller,
}
"""How to combine both sides' values of the options for masking."""
