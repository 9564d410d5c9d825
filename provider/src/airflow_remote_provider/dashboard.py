"""Checks whether this installation has the dashboard: one file, built from `ui/` into `static/` when the package is built."""

from __future__ import annotations

from pathlib import Path

FILES = Path(__file__).parent / "static"
BUNDLE = "remote-workers.js"


def explain_missing(files: Path = FILES) -> str | None:
    """Return why the dashboard is missing here and how to install it; None if it is present."""
    if (files / BUNDLE).is_file():
        return None
    return (
        f"the dashboard is not in this installation ({files / BUNDLE} is missing), so Airflow's UI does not show it; tasks, "
        "`airflow remote` and the REST API work without it. It is built with npm when the package is built: install Node.js, "
        "then reinstall airflow-provider-remote from a checkout (of an editable install: scripts/environments ui)"
    )
