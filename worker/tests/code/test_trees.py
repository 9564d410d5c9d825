"""Trees on disk: made, linked, checked, repaired, evicted."""

from __future__ import annotations

import errno
import importlib.util
import os
import py_compile
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_remote_protocol.packs import BadPack, WrongHash
from airflow_remote_protocol.trees import Tree
from airflow_remote_worker.code import trees
from airflow_remote_worker.code.trees import NewTree, Stopped, TreeStore, stamp_of
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import blobs_of, hash_of, make, pack_of, reader_of, tree_of

FILES = {
    "a_dag.py": b"print(1)\n",
    "package/__init__.py": b"",
    "package/other.py": b"x = 1\n",
    "package/deep/same.py": b"x = 1\n",
    "run.sh": b"#!/bin/sh\n",
}


def content_of(store: TreeStore, tree: Tree) -> dict[str, bytes]:
    root = store.files_of(tree.digest)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def leftovers(store: TreeStore, tree: Tree) -> list[str]:
    return [path.name for path in store.files_of(tree.digest).parent.parent.iterdir() if path.name.startswith(".")]


def damaged(store: TreeStore, tree: Tree) -> list[str]:
    return [entry.path for entry in store.check(tree)]


def tamper(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_tree_has_exactly_the_files_of_its_manifest(store: TreeStore) -> None:
    tree = make(store, FILES, executable=["run.sh"])
    assert content_of(store, tree) == FILES
    assert store.load(tree.digest) is not None
    assert damaged(store, tree) == []
    assert leftovers(store, tree) == []


def test_files_are_read_only_and_directories_open_to_their_owner_alone(store: TreeStore) -> None:
    tree = make(store, FILES, executable=["run.sh"])
    root = store.files_of(tree.digest)
    modes = {path.relative_to(root).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}
    assert modes == {
        "a_dag.py": 0o444,
        "package": 0o755,
        "package/__init__.py": 0o444,
        "package/other.py": 0o444,
        "package/deep": 0o755,
        "package/deep/same.py": 0o444,
        "run.sh": 0o555,
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in (root, root.parent, root.parent.parent)} == {0o755}


def test_a_umask_changes_nothing(store: TreeStore) -> None:
    before = os.umask(0o077)
    try:
        tree = make(store, FILES)
    finally:
        os.umask(before)
    root = store.files_of(tree.digest)
    assert stat.S_IMODE((root / "package" / "deep").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "package" / "other.py").stat().st_mode) == 0o444


def test_equal_files_of_a_base_are_the_same_files_on_disk(store: TreeStore) -> None:
    base = make(store, FILES)
    after = {**FILES, "a_dag.py": b"print(2)\n"}
    reader = reader_of(pack_of(after, base), tree_of(after).digest, base)
    new = store.make(reader.tree, "dags", "")
    new.link_from(store.files_of(base.digest), base)
    assert list(new.missing) == [hash_of(b"print(2)\n")]
    new.add(reader.blobs())
    new.complete()
    assert content_of(store, reader.tree) == after
    old, now = (store.files_of(tree.digest) / "package" / "other.py" for tree in (base, reader.tree))
    assert old.samefile(now)
    assert not (store.files_of(base.digest) / "a_dag.py").samefile(store.files_of(reader.tree.digest) / "a_dag.py")
    assert content_of(store, base) == FILES


def test_a_damaged_file_of_the_base_is_not_linked(store: TreeStore) -> None:
    base = make(store, FILES)
    tamper(store.files_of(base.digest) / "package" / "other.py", b"y = 2\n")
    new = store.make(base, "dags", "")
    new.link_from(store.files_of(base.digest), base)
    assert list(new.missing) == [hash_of(b"x = 1\n")]


def test_a_symlink_in_place_of_a_base_s_file_is_not_linked(store: TreeStore, tmp_path: Path) -> None:
    base = make(store, {"a.py": b"a"})
    (tmp_path / "same").write_bytes(b"a")
    path = store.files_of(base.digest) / "a.py"
    path.unlink()
    path.symlink_to(tmp_path / "same")
    new = store.make(base, "dags", "")
    new.link_from(store.files_of(base.digest), base)
    assert new.missing == {hash_of(b"a"): 1}
    assert damaged(store, base) == ["a.py"]


def test_a_program_and_a_plain_file_with_the_same_content_are_two_files(store: TreeStore) -> None:
    tree = make(store, {"a": b"same", "b": b"same"}, executable=["b"])
    root = store.files_of(tree.digest)
    assert [stat.S_IMODE((root / name).stat().st_mode) for name in "ab"] == [0o444, 0o555]
    other = tree_of({"a": b"same", "b": b"same"}, executable=["a"])
    new = store.make(other, "dags", "")
    new.link_from(root, tree)
    new.complete()
    assert damaged(store, tree) == damaged(store, other) == []


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EXDEV, errno.EPERM])
def test_files_are_copied_where_links_fail(store: TreeStore, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make(store, FILES)

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", fail)
    after = tree_of({**FILES, "second.py": b"x = 1\n"})
    new = store.make(after, "dags", "")
    new.link_from(store.files_of(base.digest), base)
    new.complete()
    assert damaged(store, after) == []
    assert store.files_of(after.digest).joinpath("second.py").stat().st_nlink == 1


def test_nothing_is_seen_of_a_tree_before_it_is_complete(store: TreeStore) -> None:
    tree = tree_of(FILES)
    new = store.make(tree, "dags", "")
    new.add(blobs_of({"a_dag.py": FILES["a_dag.py"]}))
    assert not store.has(tree.digest)
    assert store.held() == []
    with pytest.raises(AssertionError):
        new.complete()
    store.prepare()
    assert leftovers(store, tree) == []


def test_a_blob_that_arrives_damaged_stays_missing(store: TreeStore) -> None:
    tree = tree_of({"a.py": b"a", "b.py": b"b"})

    def bad() -> Iterator[bytes]:
        yield b"x"
        raise WrongHash(hash_of(b"a"))

    new = store.make(tree, "dags", "")
    new.add([(hash_of(b"a"), bad()), (hash_of(b"b"), iter([b"b"]))])
    assert new.missing == {hash_of(b"a"): 1}
    new.add([(hash_of(b"a"), iter([b"a"]))])
    new.complete()
    assert content_of(store, tree) == {"a.py": b"a", "b.py": b"b"}


def test_what_nobody_needs_any_more_stops_within_a_file(store: TreeStore) -> None:
    tree = tree_of({"a.py": b"aa"})
    new = store.make(tree, "dags", "")
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(len(asked) >= 1)
        return asked[-1]

    with pytest.raises(Stopped):
        new.add([(hash_of(b"aa"), iter([b"a", b"a"]))], stop=stop)
    new.discard()
    assert not any(store.files_of(tree.digest).parent.parent.iterdir())


def test_a_full_disk_leaves_nothing_behind(store: TreeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tree_of(FILES)
    new = store.make(tree, "dags", "")

    def full(fd: int, mode: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(OSError, match="full"):
        new.add(blobs_of(FILES))
    new.discard()
    assert not any(store.files_of(tree.digest).parent.parent.iterdir())


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: tamper(path, b"y = 2\n"),
        lambda path: tamper(path, b"longer than before\n"),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir(), (path / "file").touch()),
        lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
    ids=["same size", "another size", "gone", "a directory", "a link", "a fifo"],
)
def test_what_a_task_did_to_a_file_is_found_and_repaired(store: TreeStore, harm: object) -> None:
    tree = make(store, FILES)
    path = store.files_of(tree.digest) / "package" / "other.py"
    harm(path)  # type: ignore[operator]
    found = store.check(tree)
    assert "package/other.py" in [entry.path for entry in found]
    filling = store.repair(tree, found)
    filling.add(blobs_of(FILES))
    filling.discard()
    assert damaged(store, tree) == []
    assert {path: content_of(store, tree)[path] for path in FILES} == FILES
    assert leftovers(store, tree) == []


def test_a_directory_replaced_by_a_link_is_repaired_without_touching_its_target(store: TreeStore, tmp_path: Path) -> None:
    tree = make(store, FILES)
    outside = tmp_path / "outside"
    package = store.files_of(tree.digest) / "package"
    package.rename(outside)
    package.symlink_to(outside)
    (outside / "other.py").unlink()
    before = sorted(path.name for path in outside.iterdir())
    found = store.check(tree)
    assert {entry.path for entry in found} >= {"package/other.py"}
    filling = store.repair(tree, found)
    filling.add(blobs_of(FILES))
    filling.discard()
    assert sorted(path.name for path in outside.iterdir()) == before
    again = store.check(tree)
    filling = store.repair(tree, again)
    filling.add(blobs_of(FILES))
    assert damaged(store, tree) == []
    assert not package.is_symlink()


def test_a_repair_does_not_change_the_file_that_a_job_has_open(store: TreeStore) -> None:
    tree = make(store, {"data.bin": b"0" * 100})
    path = store.files_of(tree.digest) / "data.bin"
    tamper(path, b"1" * 100)
    with path.open("rb") as opened:
        filling = store.repair(tree, store.check(tree))
        filling.add(blobs_of({"data.bin": b"0" * 100}))
        assert opened.read() == b"1" * 100
    assert path.read_bytes() == b"0" * 100


def test_a_repair_does_not_reach_into_other_trees(store: TreeStore) -> None:
    base = make(store, {"a.py": b"one", "b.py": b"x"})
    after = tree_of({"a.py": b"one", "b.py": b"y"})
    new = store.make(after, "dags", "")
    new.link_from(store.files_of(base.digest), base)
    new.add(blobs_of({"b.py": b"y"}))
    new.complete()
    tamper(store.files_of(base.digest) / "a.py", b"two")
    assert damaged(store, after) == ["a.py"], "the file is shared, so both are damaged"
    filling = store.repair(after, store.check(after))
    filling.add(blobs_of({"a.py": b"one"}))
    assert damaged(store, after) == []
    assert damaged(store, base) == ["a.py"]


def test_a_changed_mode_or_time_is_restored_without_a_request(store: TreeStore) -> None:
    tree = make(store, FILES)
    path = store.files_of(tree.digest) / "a_dag.py"
    path.chmod(0o666)
    os.utime(path)
    (path.parent / "package").chmod(0o777)
    assert damaged(store, tree) == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert path.stat().st_mtime_ns == stamp_of(hash_of(FILES["a_dag.py"]))
    assert stat.S_IMODE((path.parent / "package").stat().st_mode) == 0o755


def test_a_check_reads_no_file_that_looks_right(store: TreeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make(store, FILES)

    def refuse(*_: object) -> bool:
        raise AssertionError("a file was read")

    monkeypatch.setattr(trees, "_has_hash", refuse)
    assert store.check(tree) == []


def test_after_a_reboot_every_file_is_read_once(store: TreeStore, tmp_path: Path) -> None:
    tree = make(store, FILES)
    path = store.files_of(tree.digest) / "a_dag.py"
    tamper(path, b"\0" * len(FILES["a_dag.py"]))  # as a file system may leave what was written just before a power cut
    path.chmod(0o444)
    os.utime(path, ns=(stamp_of(hash_of(FILES["a_dag.py"])),) * 2)
    assert damaged(store, tree) == []
    later = TreeStore(tmp_path / "code" / "trees", boot="the next boot")
    assert damaged(later, tree) == ["a_dag.py"]
    filling = later.repair(tree, later.check(tree))
    filling.add(blobs_of(FILES))
    assert damaged(later, tree) == []


def test_bytecode_of_another_content_is_never_used(store: TreeStore) -> None:
    """Python compares only size and time of a source with those in its bytecode."""
    tree = make(store, {"m.py": b"x = 1\n"})
    path = store.files_of(tree.digest) / "m.py"
    tamper(path, b"x = 2\n")
    os.utime(path, ns=(stamp_of(hash_of(b"x = 2\n")),) * 2)
    py_compile.compile(str(path), doraise=True)
    filling = store.repair(tree, store.check(tree))
    filling.add(blobs_of({"m.py": b"x = 1\n"}))
    spec = importlib.util.spec_from_file_location("m_of_a_tree", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.x == 1
    assert Path(importlib.util.cache_from_source(str(path))).exists() or sys.dont_write_bytecode


def test_a_damaged_manifest_is_no_tree_and_is_made_again(store: TreeStore) -> None:
    tree = make(store, FILES)
    (store.files_of(tree.digest).parent / "manifest").write_bytes(tree.manifest[:-1])
    assert store.load(tree.digest) is None
    make(store, FILES)
    assert store.load(tree.digest) is not None
    assert damaged(store, tree) == []
    assert leftovers(store, tree) == []


def test_a_tree_made_twice_at_the_same_time_is_there_once(store: TreeStore) -> None:
    tree = tree_of(FILES)
    one, two = (store.make(tree, "dags", "") for _ in range(2))
    for new in (one, two):
        new.add(blobs_of(FILES))
        new.complete()
    assert [held.digest for held in store.held()] == [tree.digest]
    assert damaged(store, tree) == []
    assert leftovers(store, tree) == []


def test_the_base_is_the_newest_tree_of_the_bundle(store: TreeStore) -> None:
    one = make(store, {"a": b"1"}, "one")
    two = make(store, {"a": b"2"}, "two")
    newer = make(store, {"a": b"3"}, "two")
    os.utime(store.files_of(two.digest).parent / "manifest")  # its use says nothing about its age
    assert (store.newest_of("one"), store.newest_of("two"), store.newest_of("three")) == (one.digest, newer.digest, None)


def use_in_order(store: TreeStore, *used: Tree) -> None:
    for number, tree in enumerate(used):
        os.utime(store.files_of(tree.digest).parent / "manifest", (1_000 + number, 1_000 + number))


def test_the_longest_unused_trees_go_first_and_pinned_ones_stay(store: TreeStore) -> None:
    size = 200_000
    made = [make(store, {"a": bytes([n]) * size}) for n in range(4)]
    use_in_order(store, *made)
    assert store.evict(pinned={made[0].digest}, most=3 * size + 150_000) == [made[1].digest]
    assert [held.digest for held in store.held()] == [made[3].digest, made[2].digest, made[0].digest]
    assert store.evict(pinned={made[0].digest}, most=0) == [made[2].digest, made[3].digest]
    assert damaged(store, made[0]) == []
    assert leftovers(store, made[0]) == []


def test_shared_files_count_once_and_are_freed_with_their_last_tree(store: TreeStore) -> None:
    large = {"large": b"x" * 1_000_000}
    base = make(store, {**large, "a": b"1"})
    after = tree_of({**large, "a": b"2"})
    new = store.make(after, "dags", "")
    new.link_from(store.files_of(base.digest), base)
    new.add(blobs_of({"a": b"2"}))
    new.complete()
    use_in_order(store, base, after)
    assert store.evict(pinned=set(), most=1_200_000) == []
    assert store.evict(pinned=set(), most=1 << 40, free=500_000) == [base.digest, after.digest]


def test_the_order_of_use_survives_a_restart(store: TreeStore, tmp_path: Path) -> None:
    one, two = make(store, {"a": b"1"}), make(store, {"a": b"2"})
    use_in_order(store, two, one)
    store.note_use(two.digest)
    assert [held.digest for held in TreeStore(tmp_path / "code" / "trees").held()] == [two.digest, one.digest]


@pytest.mark.parametrize("name", ["", ".", "..", "a" * 63, "A" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
def test_what_is_no_digest_is_no_path(store: TreeStore, name: str) -> None:
    with pytest.raises(ValueError, match="not the digest"):
        store.files_of(name)


@settings(max_examples=25, deadline=None)
@given(
    before=st.dictionaries(st.sampled_from(["a", "b", "d/a", "d/e/b", "f/c"]), st.binary(max_size=6), max_size=5),
    after=st.dictionaries(st.sampled_from(["a", "b", "d/a", "d/e/b", "f/c"]), st.binary(max_size=6), max_size=5),
    executable=st.sets(st.sampled_from(["a", "d/a", "f/c"])),
)
def test_any_tree_follows_from_any_base(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, bytes], after: dict[str, bytes], executable: set[str]
) -> None:
    store = TreeStore(tmp_path_factory.mktemp("trees"), boot="b")
    store.prepare()
    base, tree = make(store, before), tree_of(after, executable)
    reader = reader_of(pack_of(after, base, executable), tree.digest, base)
    new: NewTree = store.make(reader.tree, "dags", "")
    new.link_from(store.files_of(base.digest), base)
    new.add(reader.blobs())
    new.complete()
    assert content_of(store, tree) == after
    assert damaged(store, tree) == []
    assert damaged(store, base) == []


def test_every_cut_of_a_pack_is_noticed(store: TreeStore) -> None:
    """No part of a pack makes a tree: either its reader refuses it, or files stay missing."""
    pack, tree = pack_of(FILES), tree_of(FILES)
    for length in range(len(pack)):
        new = None
        try:
            reader = reader_of(pack[:length], tree.digest)
            new = store.make(reader.tree, "dags", "")
            new.add(reader.blobs())
        except BadPack:
            pass
        assert new is None or new.missing, f"a pack of {len(pack)} bytes was accepted after {length}"
        if new:
            new.discard()
