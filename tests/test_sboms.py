"""The SBOM of a distribution: deploy/sboms.py."""

import json
from pathlib import Path

from deploy import sboms

PROJECT = """
[project]
name = "example"
version = "1.2"
description = "An example"
license = "Apache-2.0"
dependencies = ["Some_Package>=1.0; python_version < '3.11'", "other==2"]
"""


def test_an_sbom_names_the_distribution_and_each_requirement(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    bom = json.loads(sboms.render(tmp_path))
    assert bom["metadata"]["component"]["purl"] == "pkg:pypi/example@1.2"
    assert [part["name"] for part in bom["components"]] == ["other", "some-package"]
    assert bom["dependencies"][0]["dependsOn"] == ["pkg:pypi/other", "pkg:pypi/some-package"]


def test_the_same_project_has_the_same_sbom(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    assert sboms.render(tmp_path) == sboms.render(tmp_path)
    (tmp_path / "pyproject.toml").write_text(PROJECT.replace("other==2", "other==3"))
    assert "other==3" in sboms.render(tmp_path)
