"""Writes the SBOM of each distribution (CycloneDX 1.6), which its wheel carries in `.dist-info/sboms` (PEP 770).

A wheel of ours contains our files only: the SBOM names the distribution and what it requires, as in `pyproject.toml`. Versions of
requirements are ranges, since the installer decides. `make sboms` writes the files; `make check-deploy` compares them.
"""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECTS = ("protocol", "worker", "provider")
NAME = "sbom.cdx.json"


def render(project: Path) -> str:
    """Return the SBOM of the distribution in the directory *project*: the same text for the same pyproject.toml."""
    about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = sorted(_component(requirement) for requirement in about["dependencies"])
    own = f"pkg:pypi/{about['name']}@{about['version']}"
    bom: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, own + repr(required))}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": own,
                "name": about["name"],
                "version": about["version"],
                "description": about["description"],
                "licenses": [{"license": {"id": about["license"]}}],
                "purl": own,
            }
        },
        "components": [
            {
                "type": "library",
                "bom-ref": f"pkg:pypi/{name}",
                "name": name,
                "scope": "required",
                "purl": f"pkg:pypi/{name}",
                "properties": [{"name": "requirement", "value": requirement}],
            }
            for name, requirement in required
        ],
        "dependencies": [
            {"ref": own, "dependsOn": [f"pkg:pypi/{name}" for name, _ in required]},
            *({"ref": f"pkg:pypi/{name}"} for name, _ in required),
        ],
    }
    return json.dumps(bom, indent=2) + "\n"


def _component(requirement: str) -> tuple[str, str]:
    name = re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower(), requirement


if __name__ == "__main__":
    for project in PROJECTS:
        (ROOT / project / NAME).write_text(render(ROOT / project), encoding="utf-8")
