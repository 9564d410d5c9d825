"""Wheels and sdists: two builds are equal byte for byte, have their SBOM, and installers and indexes accept them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy import sboms
from deploy.checks.running import ROOT, CheckFailed, run

EPOCH = "1735689600"
"""SOURCE_DATE_EPOCH of both builds: any fixed time after 1980, where the dates of zip archives begin."""


def check() -> dict[str, Any]:
    """Build each distribution twice, from copies whose times and permissions differ, and check the first build."""
    for project in sboms.PROJECTS:
        written, wanted = (ROOT / project / sboms.NAME).read_text(), sboms.render(ROOT / project)
        if written != wanted:
            raise CheckFailed(f"{project}/{sboms.NAME} is not what its pyproject.toml says; run: make sboms")
        if errors := JsonStrictValidator(SchemaVersion.V1_6).validate_str(written):
            raise CheckFailed(f"{project}/{sboms.NAME} is no CycloneDX 1.6: {errors}")
    with tempfile.TemporaryDirectory() as directory:
        first, second = Path(directory, "first"), Path(directory, "second")
        build(first, umask=0o022)
        build(second, umask=0o077)
        built = sorted((first / "dist").iterdir())
        for file in built:
            if file.read_bytes() != (second / "dist" / file.name).read_bytes():
                raise CheckFailed(f"{file.name}: two builds of the same sources differ")
        wheels = [file for file in built if file.suffix == ".whl"]
        for wheel in wheels:
            if not any(f".dist-info/sboms/{sboms.NAME}" in name for name in zipfile.ZipFile(wheel).namelist()):
                raise CheckFailed(f"{wheel.name} has no SBOM in .dist-info/sboms (PEP 770)")
        # W004: migrations are modules whose names begin with a number.
        run("check-wheel-contents", "--ignore", "W004", *wheels)
        run("twine", "check", "--strict", *built)
    run("towncrier", "build", "--draft", "--version", "0.0.0", "--date", "2000-01-01")
    return {"distributions": len(built), "reproducible": len(built), "sboms": len(wheels)}


def build(directory: Path, *, umask: int) -> None:
    """Build all distributions from a copy of their sources into `dist` of *directory*."""
    before = os.umask(umask)
    try:
        for project in sboms.PROJECTS:
            copy = directory / project
            shutil.copytree(
                ROOT / project, copy, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("__pycache__", "dist")
            )
            run(
                *(sys.executable, "-m", "hatchling", "build", "-d", directory / "dist"),
                cwd=copy,
                env={"SOURCE_DATE_EPOCH": EPOCH, "PYTHONHASHSEED": str(umask)},
            )
    finally:
        os.umask(before)
