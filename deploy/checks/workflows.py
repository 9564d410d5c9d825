"""The workflows of GitHub Actions: valid by their schema, and without a finding of zizmor (pedantic)."""

from __future__ import annotations

from typing import Any

from deploy.checks.running import ROOT, run


def check() -> dict[str, Any]:
    """Validate and lint each workflow, offline."""
    files = sorted((ROOT / ".github/workflows").glob("*.yml"))
    run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
    run("zizmor", "--offline", "--persona", "pedantic", "--no-progress", *files)
    return {"workflows": len(files), "findings": 0}
