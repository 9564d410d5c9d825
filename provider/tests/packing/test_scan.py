"""Directories as trees: what travels, what is refused with its name, and that unchanged files are not read again."""

from __future__ import annotations

import gc
import hashlib
import os
import socket
import stat
import time
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow_remote_protocol.trees import Tree
from airflow_remote_provider.packing import scan as scanning
from airflow_remote_provider.packing.scan import Limits, Moved, ScanState, Unpublishable, read_file, scan

LIMITS = Limits(files=1000, bytes=10 << 20, file_bytes=1 << 20)
NOTHING = ScanState()
LATER_NS = 3_600_000_000_000
"""The files of these tests are new; a scan an hour later trusts their stamps."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "dags"
    root.mkdir()
    return root


def write(root: Path, path: str, content: bytes = b"x = 1\n", mode: int = 0o644) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(mode)
    return file


def scanned(root: Path, previous: ScanState = NOTHING, limits: Limits = LIMITS) -> tuple[Tree, ScanState]:
    return scan(root, previous, limits=limits, now_ns=lambda: time.time_ns() + LATER_NS, sleep=lambda seconds: None)


def paths(root: Path) -> list[str]:
    return [entry.path for entry in scanned(root)[0].entries]


def refusal(root: Path, limits: Limits = LIMITS) -> str:
    with pytest.raises(Unpublishable) as refused:
        scanned(root, limits=limits)
    return str(refused.value)


def test_every_file_travels_with_content_size_and_mode(root: Path) -> None:
    write(root, "etl.py", b"from helpers.maths import two\n")
    write(root, "helpers/__init__.py", b"")
    write(root, "helpers/maths.py", b"two = 2\n")
    write(root, "sql/daily report.sql", b"select 1")
    write(root, "bin/run.sh", b"#!/bin/sh\n", 0o755)
    tree, _ = scanned(root)
    assert [(entry.path, entry.size, entry.executable) for entry in tree.entries] == [
        ("bin/run.sh", 10, True),
        ("etl.py", 30, False),
        ("helpers/__init__.py", 0, False),
        ("helpers/maths.py", 8, False),
        ("sql/daily report.sql", 8, False),
    ]
    assert tree.entries[3].sha256 == hashlib.sha256(b"two = 2\n").hexdigest()


def test_what_airflowignore_names_travels_because_dags_may_import_it(root: Path) -> None:
    write(root, ".airflowignore", b"helpers\n")
    write(root, "helpers/code.py")
    assert paths(root) == [".airflowignore", "helpers/code.py"]


def test_a_zip_of_dags_is_a_file(root: Path) -> None:
    with zipfile.ZipFile(root / "packed.zip", "w") as packed:
        packed.writestr("dag.py", "x = 1")
    assert paths(root) == ["packed.zip"]


def test_bytecode_repositories_and_environments_stay_at_home(root: Path) -> None:
    for path in (
        "__pycache__/a.cpython-311.pyc",
        "a/b.pyc",
        ".git/config",
        "sub/.git",
        ".venv/bin/python",
        "ui/node_modules/x.js",
    ):
        write(root, path)
    write(root, "keep.py")
    assert paths(root) == ["keep.py"]


def test_remoteignore_excludes_and_includes_again(root: Path) -> None:
    write(root, ".remoteignore", b"# large\n*.csv\n!keep.csv\nbuild/\n!*.pyc\n")
    for path in ("big.csv", "keep.csv", "build/out.py", "src/build", "legacy.pyc"):
        write(root, path)
    assert paths(root) == [".remoteignore", "keep.csv", "legacy.pyc", "src/build"]


def test_remoteignore_can_list_what_to_include(root: Path) -> None:
    write(root, ".remoteignore", b"*\n!*/\n!*.py\n")
    for path in ("dag.py", "pkg/code.py", "pkg/data.csv"):
        write(root, path)
    assert paths(root) == ["dag.py", "pkg/code.py"]


def test_a_change_of_remoteignore_applies_to_known_files(root: Path) -> None:
    write(root, "big.csv")
    write(root, "dag.py")
    _, state = scanned(root)
    write(root, ".remoteignore", b"*.csv\n")
    tree, _ = scanned(root, state)
    assert [entry.path for entry in tree.entries] == [".remoteignore", "dag.py"]


def test_remoteignore_that_is_no_text_is_refused(root: Path) -> None:
    write(root, ".remoteignore", b"\xff\xfe")
    assert refusal(root).startswith(".remoteignore can't be used: 'utf-8' codec")


def test_links_within_the_bundle_become_files(root: Path) -> None:
    write(root, "lib/shared.py", b"shared = 1\n")
    (root / "copy.py").symlink_to("lib/shared.py")
    (root / "alias").symlink_to("lib", target_is_directory=True)
    tree, _ = scanned(root)
    assert [entry.path for entry in tree.entries] == ["alias/shared.py", "copy.py", "lib/shared.py"]
    assert len({entry.sha256 for entry in tree.entries}) == 1


def test_a_link_out_of_the_bundle_is_refused_with_its_name(root: Path, tmp_path: Path) -> None:
    write(tmp_path, "secret.txt")
    (root / "sub").mkdir()
    (root / "sub/leak").symlink_to(tmp_path / "secret.txt")
    assert refusal(root) == (
        f"the link sub/leak leads out of the bundle, to {tmp_path / 'secret.txt'}; put a copy in its place, "
        "or name it in .remoteignore"
    )


def test_a_link_to_a_directory_beside_the_bundle_with_the_same_beginning_is_refused(root: Path, tmp_path: Path) -> None:
    write(tmp_path, "dags-private/secret.txt")
    (root / "leak").symlink_to(tmp_path / "dags-private", target_is_directory=True)
    assert "the link leak leads out of the bundle" in refusal(root)


def test_an_ignored_link_out_of_the_bundle_is_no_trouble(root: Path, tmp_path: Path) -> None:
    write(root, ".remoteignore", b"leak\n")
    (root / "leak").symlink_to(tmp_path)
    assert paths(root) == [".remoteignore"]


def test_a_link_that_loops_is_refused_with_its_name(root: Path) -> None:
    write(root, "a/b.py")
    (root / "a/again").symlink_to(root / "a", target_is_directory=True)
    assert "the link a/again leads to a directory that contains it" in refusal(root)


def test_a_link_that_leads_nowhere_is_left_out(root: Path) -> None:
    write(root, "dag.py")
    (root / ".#dag.py").symlink_to("user@host.123:456")
    assert paths(root) == ["dag.py"]


def test_sockets_and_pipes_are_refused_with_their_name(root: Path) -> None:
    os.mkfifo(root / "pipe")
    assert refusal(root) == "pipe is a named pipe, which can't travel; remove it, or name it in .remoteignore"
    (root / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "s"))
        assert "s is a socket" in refusal(root)


def test_names_travel_in_their_composed_form(root: Path) -> None:
    name = unicodedata.normalize("NFD", "Übersicht") + ".py"
    write(root, name, b"y = 2\n")
    tree, state = scanned(root)
    assert [entry.path for entry in tree.entries] == [unicodedata.normalize("NFC", name)]
    assert read_file("Übersicht.py", state.seen["Übersicht.py"]) == b"y = 2\n"


def test_one_name_in_two_forms_is_refused(root: Path) -> None:
    write(root, unicodedata.normalize("NFD", "é.py"))
    write(root, "é.py")
    assert refusal(root) == "two files have the name é.py, in two forms of Unicode; rename one"


def test_two_names_that_differ_in_case_only_are_refused(root: Path) -> None:
    write(root, "Dag.py")
    write(root, "dag.py")
    assert "'dag.py' and 'Dag.py' are the same name on Windows and macOS" in refusal(root)


def test_a_name_that_is_no_text_is_refused(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.py")).touch()
    assert "is not valid Unicode" in refusal(root)


def test_a_name_that_windows_refuses_is_refused_with_the_remedy(root: Path) -> None:
    write(root, "a:b.py")
    assert refusal(root) == (
        "the path 'a:b.py' contains ':', which not every system allows in a file's name; rename it, or name it in .remoteignore"
    )


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(2, 1 << 20, 1 << 20), "there are more than 2 files ([remote] tree_files), the last one found is c.py."),
        (Limits(9, 11, 1 << 20), "the files have more than 11 bytes ([remote] tree_bytes), the last one found is b.py."),
        (Limits(9, 1 << 20, 5), "a.py has 6 bytes; [remote] blob_bytes allows 5."),
    ],
)
def test_limits_are_named_with_the_file_that_exceeds_them(root: Path, limits: Limits, expected: str) -> None:
    for name in "abc":
        write(root, f"{name}.py")
    assert refusal(root, limits).startswith(expected)


def test_an_unreadable_file_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, "private.py")
    real = Path.open

    def refused(place: Path, *args: Any, **options: Any) -> Any:
        if place.name == "private.py":
            raise PermissionError(13, "Permission denied", str(place))
        return real(place, *args, **options)

    monkeypatch.setattr(Path, "open", refused)
    assert refusal(root) == "private.py can't be read: Permission denied; correct its permissions, or name it in .remoteignore"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone") == (
        f"the directory {tmp_path / 'gone'} can't be read: No such file or directory; check the path and its permissions"
    )
    write(tmp_path, "file")
    assert refusal(tmp_path / "file") == f"{tmp_path / 'file'} is not a directory"


def test_an_empty_directory_is_an_empty_tree(root: Path) -> None:
    assert scanned(root)[0].files == 0


# Changes


def test_unchanged_files_are_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        write(root, f"dag{number}.py", b"%d" % number)
    tree, state = scanned(root)
    read: list[str] = []
    hashed = scanning._hash
    monkeypatch.setattr(scanning, "_hash", lambda place, path, **how: (read.append(path), hashed(place, path, **how))[1])
    again, after = scanned(root, state)
    assert again is tree
    assert after is state
    assert read == []
    write(root, "dag3.py", b"changed")
    changed, _ = scanned(root, state)
    assert read == ["dag3.py"]
    assert changed.get("dag3.py") is not None
    assert changed.digest != tree.digest


def test_a_file_that_is_new_is_read_again_since_its_stamp_proves_nothing_yet(root: Path) -> None:
    file = write(root, "dag.py", b"aaaa")
    status = file.stat()
    _, state = scan(root, limits=LIMITS, now_ns=lambda: status.st_ctime_ns + 1)
    assert not state.seen["dag.py"].is_settled
    same_stamp = state.seen["dag.py"].stamp
    file.write_bytes(b"bbbb")
    # As if the change fell into the same tick of the file system's clock.
    racy = {"dag.py": state.seen["dag.py"]._replace(stamp=scanning.Stamp.of(file.stat()))}
    assert racy["dag.py"].stamp != same_stamp
    tree, _ = scanned(root, ScanState(state.root, state.rules, racy, state.tree))
    assert tree.entries[0].sha256 == hashlib.sha256(b"bbbb").hexdigest()


def test_a_file_with_a_time_in_the_future_settles(root: Path) -> None:
    file = write(root, "dag.py")
    os.utime(file, (4e9, 4e9))
    _, state = scanned(root)
    assert state.seen["dag.py"].is_settled


def test_a_change_of_the_mode_is_a_change(root: Path) -> None:
    file = write(root, "run.sh")
    _, state = scanned(root)
    file.chmod(0o755)
    tree, _ = scanned(root, state)
    assert tree.entries[0].executable


def test_a_touched_file_makes_the_same_tree(root: Path) -> None:
    file = write(root, "dag.py")
    tree, state = scanned(root)
    os.utime(file, ns=(1, 1))
    again, after = scanned(root, state)
    assert again is tree
    assert after is not state


def test_a_removed_file_leaves_the_tree(root: Path) -> None:
    write(root, "a.py")
    write(root, "b.py")
    _, state = scanned(root)
    (root / "a.py").unlink()
    assert [entry.path for entry in scanned(root, state)[0].entries] == ["b.py"]


def during_reading(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None], *, times: int) -> None:
    """Call *change* after a file was read, the first *times* times."""
    hashed, left = scanning._hash, [times]

    def interrupted(place: str, path: str, **how: object) -> object:
        seen = hashed(place, path, **how)  # type: ignore[arg-type]
        if left[0]:
            left[0] -= 1
            change()
        return seen

    monkeypatch.setattr(scanning, "_hash", interrupted)


def test_a_scan_is_repeated_if_files_moved_meanwhile(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, "a.py", b"old")
    write(root, "b.py", b"old")
    during_reading(monkeypatch, lambda: [write(root, name, b"new!") for name in ("a.py", "b.py")] and None, times=1)
    tree, _ = scanned(root)
    assert {entry.sha256 for entry in tree.entries} == {hashlib.sha256(b"new!").hexdigest()}


def test_a_file_that_always_changes_does_not_keep_the_others_from_being_published(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, "dag.py")
    log = write(root, "app.log", b"")

    def append() -> None:
        with log.open("ab") as file:
            file.write(b"line\n")

    during_reading(monkeypatch, append, times=1000)
    tree, state = scanned(root)
    assert [entry.path for entry in tree.entries] == ["app.log", "dag.py"]
    assert state.restless == ("app.log",)


def test_a_directory_that_disappears_for_good_moved(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, "sub/a.py")
    real = os.scandir

    def vanishing(place: str) -> object:
        if str(place).endswith("sub"):
            raise FileNotFoundError(2, "No such file or directory", place)
        return real(place)

    monkeypatch.setattr(os, "scandir", vanishing)
    with pytest.raises(Moved, match="sub/ disappeared while it was read"):
        scanned(root)


def test_a_root_that_is_switched_as_by_git_sync_is_read_from_its_new_place(tmp_path: Path) -> None:
    write(tmp_path, "worktrees/1/dag.py", b"one")
    write(tmp_path, "worktrees/2/dag.py", b"two")
    current = tmp_path / "current"
    current.symlink_to("worktrees/1")
    _, state = scanned(current)
    current.unlink()
    current.symlink_to("worktrees/2")
    tree, _ = scanned(current, state)
    assert tree.entries[0].sha256 == hashlib.sha256(b"two").hexdigest()


def test_a_file_that_changed_after_the_scan_is_not_published_as_what_it_was(root: Path) -> None:
    file = write(root, "dag.py", b"old")
    _, state = scanned(root)
    assert read_file("dag.py", state.seen["dag.py"]) == b"old"
    file.write_bytes(b"new")
    with pytest.raises(Moved, match=r"dag.py changed while it was read"):
        read_file("dag.py", state.seen["dag.py"])
    file.unlink()
    with pytest.raises(Moved, match=r"dag.py disappeared"):
        read_file("dag.py", state.seen["dag.py"])


def test_an_unchanged_scan_of_2000_files_is_quick(root: Path) -> None:
    for number in range(2000):
        write(root, f"team{number % 40}/dag{number}.py", b"%d" % number)
    limits = Limits(20_000, 512 << 20, 64 << 20)
    tree, state = scanned(root, limits=limits)
    took = []
    for _ in range(5):
        begun = time.thread_time()
        again, _ = scanned(root, state, limits)
        took.append(time.thread_time() - begun)
        assert again is tree
    assert min(took) < 0.05, took


def test_an_unchanged_scan_makes_no_work_for_the_garbage_collector(root: Path) -> None:
    for number in range(500):
        write(root, f"dag{number}.py")
    _, state = scanned(root)
    scanned(root, state)
    gc.collect()
    gc.disable()
    try:
        before = gc.get_count()[0]
        scanned(root, state)
        assert gc.get_count()[0] - before < 200  # two for each file would start a collection
    finally:
        gc.enable()


def test_the_executable_bit_is_the_owners() -> None:
    status = os.stat_result((stat.S_IFREG | 0o611, 1, 2, 1, 0, 0, 3, 0, 0, 0))
    assert not scanning.Stamp.of(status).executable
