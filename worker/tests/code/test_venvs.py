"""Programs of environments; the environments themselves are tested with their runtimes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from airflow_remote_worker.code.venvs import script_for


def test_a_program_in_a_long_path_starts_too(tmp_path: Path) -> None:
    directory = tmp_path / "with space" / ("x" * 120)
    directory.mkdir(parents=True)
    (directory / "python").symlink_to(sys.executable)
    program = directory / "program"
    program.write_text(script_for(directory / "python", "json", "dumps.__name__.upper"))
    program.chmod(0o755)
    assert subprocess.run([program], capture_output=True, check=False, text=True).stderr.strip() == "DUMPS"
