"""scripts/environments and links to environments of another clone."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_an_environment_that_is_a_link_is_never_made_again(tmp_path: Path) -> None:
    clone, theirs = tmp_path / "clone", tmp_path / "theirs"
    (clone / "scripts").mkdir(parents=True)
    (clone / "requirements").mkdir()
    shutil.copy(ROOT / "scripts/environments", clone / "scripts")
    (clone / "requirements/bootstrap.lock").write_text("changed\n")
    (clone / ".work").mkdir()
    theirs.mkdir()
    (theirs / ".stamp").write_text("made from something else\n")
    (clone / ".work/uv").symlink_to(theirs)

    done = subprocess.run([clone / "scripts/environments", "uv"], capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert f".work/uv is out of date for this clone, but is a link to {theirs}" in done.stderr
    assert (clone / ".work/uv").is_symlink()
    assert [file.name for file in theirs.iterdir()] == [".stamp"]
