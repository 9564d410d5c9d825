"""The Containerfiles: linted by hadolint."""

from __future__ import annotations

from typing import Any

from deploy.checks.running import ROOT, run


def check() -> dict[str, Any]:
    """Lint each Containerfile."""
    files = sorted((ROOT / "deploy/docker").glob("*.Containerfile"))
    run("hadolint", *files)
    return {"files": len(files), "findings": 0}
