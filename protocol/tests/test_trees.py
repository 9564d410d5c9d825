"""Trees: which files they may have, and that equal directories have equal manifests."""

from __future__ import annotations

import contextlib
import hashlib
import unicodedata

import pytest
from airflow_remote_protocol.trees import MAX_FILES, MAX_PATH_BYTES, BadTree, Entry, Tree, check_path
from hypothesis import given
from hypothesis import strategies as st

DIGEST = hashlib.sha256(b"content").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


def entry(path: str, sha256: str = DIGEST, size: int = 7, *, executable: bool = False) -> Entry:
    return Entry(path, sha256, size, executable)


def test_a_manifest_has_one_line_for_each_file_by_path() -> None:
    tree = Tree.of([entry("b/run.sh", OTHER, 5, executable=True), entry("a.py"), entry("é.txt")])
    lines = ["airflow-remote-tree 1", f"{DIGEST} 7 - a.py", f"{OTHER} 5 x b/run.sh", f"{DIGEST} 7 - é.txt", ""]
    assert tree.manifest == "\n".join(lines).encode()
    assert tree.digest == hashlib.sha256(tree.manifest).hexdigest()
    assert (tree.files, tree.bytes) == (3, 19)
    assert tree.sizes == {DIGEST: 7, OTHER: 5}
    assert tree.get("b/run.sh") == entry("b/run.sh", OTHER, 5, executable=True)
    assert tree.get("b") is None


def test_the_empty_tree_is_a_tree() -> None:
    assert Tree.parse(Tree.of([]).manifest).files == 0


ALLOWED = [
    "a.py",
    "dags/Übung.py",
    "a b/c d.txt",
    ".airflowignore",
    "日本/ダグ.py",
    "console.py",
    "a/.hidden",
    "com10.txt",
    "x" * 240,
]


@pytest.mark.parametrize("path", ALLOWED)
def test_a_path_that_every_system_has(path: str) -> None:
    check_path(path)


REFUSED = {
    "absolute": ("/etc/passwd", "relative"),
    "empty": ("", "relative"),
    "part": ("a//b", "relative"),
    "dots": ("a/../b", "relative"),
    "dot": ("./a", "relative"),
    "directory": ("a/", "relative"),
    "backslash": ("a\\b", "contains '\\\\'"),
    "drive": ("C:/a", "contains ':'"),
    "stream": ("a.py:x", "contains ':'"),
    "question": ("a?", "contains '?'"),
    "line end": ("a\nb", "contains '\\n'"),
    "nul": ("a\0", "contains '\\x00'"),
    "next line": ("a\x85b", "contains '\\x85'"),
    "trailing dot": ("a./b", "dot or space"),
    "trailing space": ("a ", "dot or space"),
    "device": ("a/NUL", "device"),
    "device with a suffix": ("aux.tar.gz", "device"),
    "device with spaces": ("con .txt", "device"),
    "superscript": ("COM¹", "device"),
    "console": ("CONIN$", "device"),
    "long": ("x" * 241, "241 bytes"),
    "long in bytes": ("é" * 121, "242 bytes"),
    "decomposed": (unicodedata.normalize("NFD", "é.py"), "NFC"),
    "surrogate": ("a\udc80", "Unicode"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_path_that_some_system_does_not_have(case: str) -> None:
    path, why = REFUSED[case]
    with pytest.raises(BadTree) as error:
        check_path(path)
    assert why in str(error.value)
    str(error.value).encode()  # can be logged and sent


CLASHES = {
    "twice": (["a.py", "a.py"], "'a.py' appears twice"),
    "case": (["A.py", "a.py"], "'a.py' and 'A.py' are the same name"),
    "sharp s": (["STRASSE", "straße"], "are the same name"),
    "case of a directory": (["Lib/a.py", "lib/b.py"], "'lib' and 'Lib' are the same name"),
    "case of an upper directory": (["a/Lib/x/1", "a/lib/y/2"], "'a/lib' and 'a/Lib' are the same name"),
    "file and directory": (["a", "a/b"], "'a' is a file, and 'a' is a directory"),
    "file and directory by case": (["A", "a/b"], "'A' is a file, and 'a' is a directory"),
}


@pytest.mark.parametrize("case", CLASHES)
def test_paths_that_exclude_each_other(case: str) -> None:
    paths, why = CLASHES[case]
    with pytest.raises(BadTree) as error:
        Tree.of(entry(path) for path in paths)
    assert why in str(error.value)


def test_wrong_digests_and_sizes() -> None:
    for wrong, why in (
        (entry("a", "x" * 64), "SHA-256"),
        (entry("a", DIGEST.upper()), "SHA-256"),
        (entry("a", size=-1), "bytes"),
        (entry("a", size=1 << 41), "bytes"),
    ):
        with pytest.raises(BadTree, match=why):
            Tree.of([wrong])
    with pytest.raises(BadTree, match="another one with the same SHA-256"):
        Tree.of([entry("a", size=1), entry("b", size=2)])


def test_a_tree_has_a_limited_number_of_files() -> None:
    with pytest.raises(BadTree, match="100001 files"):
        Tree.of(entry(f"f{n}") for n in range(MAX_FILES + 1))


GOOD = Tree.of([entry("a.py"), entry("b.py", OTHER, 5)]).manifest
MALFORMED = {
    "no header": (GOOD.split(b"\n", 1)[1], "begins with"),
    "newer": (GOOD.replace(b"tree 1", b"tree 2"), "'airflow-remote-tree 1' is known"),
    "no last line end": (GOOD[:-1], "line end"),
    "header alone": (b"airflow-remote-tree 1", "line end"),
    "order": (b"".join([GOOD.splitlines(True)[i] for i in (0, 2, 1)]), "order"),
    "empty line": (GOOD + b"\n", "malformed line"),
    "leading zero": (GOOD.replace(b" 7 ", b" 07 "), "malformed line"),
    "mode": (GOOD.replace(b" - ", b" s "), "malformed line"),
    "carriage return": (GOOD.replace(b"\n", b"\r\n"), "begins with"),
    "not UTF-8": (GOOD + b"\xff\n", "UTF-8"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_manifest(case: str) -> None:
    manifest, why = MALFORMED[case]
    with pytest.raises(BadTree) as error:
        Tree.parse(manifest)
    assert why in str(error.value)


names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)


@given(st.lists(st.tuples(paths, st.sampled_from([DIGEST, OTHER]), st.booleans()), max_size=30))
def test_a_tree_is_either_refused_or_parsed_again(files: list[tuple[str, str, bool]]) -> None:
    try:
        tree = Tree.of(Entry(path, sha256, len(sha256), executable) for path, sha256, executable in files)
    except BadTree:
        return
    again = Tree.parse(tree.manifest)
    assert again.entries == tree.entries
    assert again.digest == tree.digest
    assert [one.path.encode() for one in tree.entries] == sorted(path.encode() for path, _, _ in files)
    assert all(len(one.path.encode()) <= MAX_PATH_BYTES for one in tree.entries)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_a_tree(data: bytes) -> None:
    for manifest in (data, b"airflow-remote-tree 1\n" + data):
        with contextlib.suppress(BadTree):
            assert Tree.parse(manifest).manifest == manifest
