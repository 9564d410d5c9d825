"""The wheels hold what runs at a site or on central, and not what only tests use (docs/reference/conformance.md)."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("project", "needed", "excluded"),
    [
        ("protocol", "airflow_remote_protocol/messages.py", "airflow_remote_protocol/conformance/"),
        ("worker", "airflow_remote_worker/shim/launch.py", "airflow_remote_worker/testing/"),
    ],
)
def test_a_wheel_has_no_code_of_tests(project: str, needed: str, excluded: str, tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT / project, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert needed in names
    assert not [name for name in names if name.startswith(excluded)]
    assert (ROOT / project / "src" / excluded).is_dir(), "it moved; exclude it under its new name"
