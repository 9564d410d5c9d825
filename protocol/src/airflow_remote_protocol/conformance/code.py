"""A worker fetches the code of its jobs: packs, ranges of them, single blobs; and reports what it holds."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from io import BytesIO

from airflow_remote_protocol.codec import decode
from airflow_remote_protocol.conformance.caller import Caller, unique
from airflow_remote_protocol.conformance.central import CentralUnderTest, Response
from airflow_remote_protocol.conformance.expect import describe, expect_no_content, expect_refusal
from airflow_remote_protocol.errors import ProblemCode
from airflow_remote_protocol.messages import BlobsWanted, Inventory, Statements
from airflow_remote_protocol.packs import Encoding, PackReader, read_blobs
from airflow_remote_protocol.trees import Entry, Tree
from airflow_remote_protocol.version import PROBLEM_HEADER

FORBIDDEN_DIGESTS = (
    "0" * 63,
    "0" * 65,
    "G" * 64,
    "A" * 64,
    "..",
    "%2e%2e",
    "%00",
    "0" * 63 + "%20",
    "%D9%A0" * 64,  # digits, but not ASCII
    "*",
    "'",
    "z" * 5000,
)


def check_a_worker_gets_the_whole_tree_of_its_job(central: CentralUnderTest) -> None:
    files = _files()
    caller, digest = _with_tree(central, files)
    response = _pack(caller, digest)
    assert response.status == 200, f"expected 200 with a pack, got {describe(response)}"
    assert response.headers.get("content-type") == "application/octet-stream"
    assert response.headers.get("accept-ranges") == "bytes", "a pack can be requested in ranges, and the answer must say so"
    assert response.headers.get("content-encoding", "identity") == "identity", "a pack must not be compressed once more"
    assert _is_strong_etag(response.headers.get("etag", "")), f"the pack has no strong ETag: {dict(response.headers)}"
    assert _contents(response.body, digest) == files


def check_a_pack_is_the_same_each_time(central: CentralUnderTest) -> None:
    caller, digest = _with_tree(central, _files())
    one, two = _pack(caller, digest), _pack(caller, digest)
    assert one.body == two.body
    assert one.headers["etag"] == two.headers["etag"]


def check_an_empty_tree_has_a_pack(central: CentralUnderTest) -> None:
    caller, digest = _with_tree(central, {})
    assert _contents(_pack(caller, digest).body, digest) == {}


def check_a_pack_from_a_base_has_only_what_the_base_lacks(central: CentralUnderTest) -> None:
    before = _files()
    after = {**before, "dags/one.py": b"changed", "new.txt": b"new"}
    del after["data/large.bin"]
    base, whole = _tree(before), central.publish(before)
    assert base.digest == whole, f"the central names the tree {whole}, its digest is {base.digest}"
    caller, digest = _with_tree(central, after)
    response = _pack(caller, digest, f"?base={base.digest}")
    assert response.status == 200, describe(response)
    assert len(response.body) < 1000, f"a pack of two small files has {len(response.body)} bytes"
    reader = PackReader(BytesIO(response.body), digest=digest, bases={base.digest: base}.get)
    assert reader.base is not None, "the pack was not made from the base"
    assert {_sha256(b"changed"), _sha256(b"new")} == {sha256 for sha256, _ in reader.blobs()}
    assert response.headers["etag"] != _pack(caller, digest).headers["etag"], "packs with and without a base are different bytes"


def check_the_base_may_be_the_tree_itself(central: CentralUnderTest) -> None:
    files = _files()
    caller, digest = _with_tree(central, files)
    reader = PackReader(BytesIO(_pack(caller, digest, f"?base={digest}").body), digest=digest, bases={digest: _tree(files)}.get)
    assert list(reader.blobs()) == []


def check_an_unknown_base_is_no_base(central: CentralUnderTest) -> None:
    files = _files()
    caller, digest = _with_tree(central, files)
    response = _pack(caller, digest, f"?base={'5' * 64}")
    assert response.status == 200, describe(response)
    assert _contents(response.body, digest) == files


def check_a_malformed_base_is_invalid(central: CentralUnderTest) -> None:
    caller, digest = _with_tree(central, {"a": b"a"})
    for base in FORBIDDEN_DIGESTS[:4]:
        expect_refusal(_pack(caller, digest, f"?base={base}"), ProblemCode.INVALID)
    expect_refusal(_pack(caller, digest, "?lzma=maybe"), ProblemCode.INVALID)


def check_a_worker_without_lzma_gets_none(central: CentralUnderTest) -> None:
    files = _files()
    caller, digest = _with_tree(central, files)
    response = _pack(caller, digest, "?lzma=0")
    assert _contents(response.body, digest) == files
    assert Encoding.LZMA.value not in _encodings(response.body, digest, files)
    assert Encoding.LZMA.value in _encodings(_pack(caller, digest).body, digest, files), "nothing in this pack is LZMA"
    for first, last in ((0, 9), (len(response.body) // 2, len(response.body) // 2 + 70_000), (len(response.body) - 10, None)):
        _expect_range(caller, digest, response, first, last, "?lzma=0")


def check_a_range_of_a_pack_is_partial_content(central: CentralUnderTest) -> None:
    caller, digest = _with_tree(central, _files())
    whole = _pack(caller, digest)
    size = len(whole.body)
    chance = random.Random(16)
    for first, last in [(0, 0), (0, size - 1), (size - 1, size - 1), (0, None), (size - 1, None), (0, size + 100), (0, 10**30)]:
        _expect_range(caller, digest, whole, first, last)
    for _ in range(10):
        first = chance.randrange(size)
        _expect_range(caller, digest, whole, first, chance.randrange(first, size))


def check_a_suffix_range_is_the_end_of_the_pack(central: CentralUnderTest) -> None:
    caller, digest = _with_tree(central, _files())
    whole = _pack(caller, digest)
    size = len(whole.body)
    for length in (1, 10, size, size + 1, 10**30):
        response = _pack(caller, digest, headers={"range": f"bytes=-{length}"})
        assert response.status == 206, describe(response)
        assert response.body == whole.body[-min(length, size) :]
        assert response.headers["content-range"] == f"bytes {size - min(length, size)}-{size - 1}/{size}"


def check_a_range_beyond_the_end_is_not_satisfiable(central: CentralUnderTest) -> None:
    caller, digest = _with_tree(central, {"a": b"a"})
    whole = _pack(caller, digest)
    size = len(whole.body)
    for asked in (f"{size}-", f"{size}-{size + 5}", "9" * 40 + "-", "-0"):
        response = _pack(caller, digest, headers={"range": f"bytes={asked}"})
        assert response.status == 416, f"bytes={asked}: expected 416, got {describe(response)}"
        assert response.headers.get("content-range") == f"bytes */{size}"
        assert response.headers.get("etag") == whole.headers["etag"]
        assert response.headers.get(PROBLEM_HEADER) == ProblemCode.INVALID.value


def check_a_range_that_central_does_not_serve_is_ignored(central: CentralUnderTest) -> None:
    caller, digest = _with_tree(central, {"a": b"a"})
    whole = _pack(caller, digest)
    ignored = ("bytes=0-1,3-4", "bytes=" + ",".join(["0-"] * 500), "bytes=5-2", "bytes=", "bytes=-", "bytes=a-b", "lines=0-1")
    for asked in (*ignored, "bytes=--5", "bytes=-5-", "bytes=0x1-2", "0-1"):
        response = _pack(caller, digest, headers={"range": asked})
        assert (response.status, response.body) == (200, whole.body), f"{asked}: {describe(response)}"


def check_a_range_of_another_pack_is_not_sent(central: CentralUnderTest) -> None:
    caller, digest = _with_tree(central, {"a": b"a"})
    whole = _pack(caller, digest)
    etag = whole.headers["etag"]
    same = _pack(caller, digest, headers={"range": "bytes=5-", "if-range": etag})
    assert (same.status, same.body) == (206, whole.body[5:]), describe(same)
    for other in (f'"{"0" * 64}"', f"W/{etag}", etag.strip('"'), "Wed, 21 Oct 2015 07:28:00 GMT", "*", ""):
        response = _pack(caller, digest, headers={"range": "bytes=5-", "if-range": other})
        assert (response.status, response.body) == (200, whole.body), f"if-range {other}: {describe(response)}"


def check_a_pack_cut_anywhere_can_be_continued(central: CentralUnderTest) -> None:
    files = _files()
    caller, digest = _with_tree(central, files)
    whole = _pack(caller, digest)
    got, size = b"", len(whole.body)
    while len(got) < size:
        window = f"bytes={len(got)}-{len(got) + size // 7}"
        got += _pack(caller, digest, headers={"range": window, "if-range": whole.headers["etag"]}).body
    assert _contents(got, digest) == files


def check_a_tree_of_no_open_job_of_the_worker_is_not_found(central: CentralUnderTest) -> None:
    files = _files()
    owner, digest = _with_tree(central, files)
    stranger = Caller.connect(central)
    stranger.start_job()
    wanted = BlobsWanted(blobs=[_sha256(files["dags/one.py"])])
    for other in (digest, "7" * 64):
        expect_refusal(_pack(stranger, other), ProblemCode.NOT_FOUND)
        expect_refusal(stranger.call("POST", f"trees/{other}/blobs", wanted), ProblemCode.NOT_FOUND)
    same = [_pack(stranger, other).body.replace(other[:12].encode(), b"") for other in (digest, "7" * 64)]
    assert same[0] == same[1], "the answer tells whether the tree exists"
    assert _pack(owner, digest).status == 200


def check_a_tree_is_not_found_after_the_job_has_ended(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    offer = caller.start_task()
    digest = central.publish({"a": b"a"})
    central.run_tree(offer.job_id, digest)
    assert _pack(caller, digest).status == 200
    caller.end_task(offer)
    assert _pack(caller, digest).status == 200, "the job has not been reported yet, so it is open"
    caller.report(offer)
    expect_refusal(_pack(caller, digest), ProblemCode.NOT_FOUND)


def check_a_name_that_is_no_digest_is_not_found(central: CentralUnderTest) -> None:
    caller, _ = _with_tree(central, {"a": b"a"})
    for name in FORBIDDEN_DIGESTS:
        expect_refusal(_pack(caller, name), ProblemCode.NOT_FOUND)
        expect_refusal(caller.call("POST", f"trees/{name}/blobs", BlobsWanted(blobs=["0" * 64])), ProblemCode.NOT_FOUND)


def check_single_blobs_repair_a_tree(central: CentralUnderTest) -> None:
    files = _files()
    caller, digest = _with_tree(central, files)
    tree = _tree(files)
    for lzma in (True, False):
        wanted = {_sha256(files["dags/one.py"]), _sha256(files["data/large.bin"])}
        asked = BlobsWanted(blobs=sorted(wanted) * 2, lzma=lzma)
        response = caller.call("POST", f"trees/{digest}/blobs", asked)
        assert response.status == 200, describe(response)
        assert response.headers.get("content-type") == "application/octet-stream"
        got = {sha256: b"".join(content) for sha256, content in read_blobs(BytesIO(response.body), tree, wanted)}
        assert got == {_sha256(files[path]): files[path] for path in ("dags/one.py", "data/large.bin")}


def check_blobs_of_another_tree_are_invalid(central: CentralUnderTest) -> None:
    other = {"secret": b"of another tree"}
    central.publish(other)
    caller, digest = _with_tree(central, {"a": b"a"})
    for blobs in ([_sha256(other["secret"])], [_sha256(b"a"), _sha256(other["secret"])], ["0" * 64]):
        expect_refusal(caller.call("POST", f"trees/{digest}/blobs", BlobsWanted(blobs=blobs)), ProblemCode.INVALID)
    bad: tuple[object, ...] = ({"blobs": []}, {"blobs": ["x"]}, {"blobs": ["0" * 64] * 1001}, {"blobs": "0"}, {}, None)
    for body in bad:
        response = caller.call("POST", f"trees/{digest}/blobs", body=json.dumps(body).encode())
        expect_refusal(response, ProblemCode.INVALID)


def check_a_worker_reports_the_trees_that_it_holds(central: CentralUnderTest) -> None:
    caller = Caller.connect(central)
    expect_no_content(caller.call("POST", "inventory", Inventory(trees=[_sha256(str(n).encode()) for n in range(1000)])))
    expect_no_content(caller.call("POST", "inventory", Inventory(trees=[])))
    bad: tuple[object, ...] = ({"trees": ["x"]}, {"trees": ["0" * 64] * 1001}, {"trees": None}, {}, [])
    for body in bad:
        expect_refusal(caller.call("POST", "inventory", body=json.dumps(body).encode()), ProblemCode.INVALID)


def check_code_without_the_session_is_refused(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    refused = (ProblemCode.SESSION_TAKEN, ProblemCode.INVALID)
    expect_refusal(caller.call("POST", "inventory", Inventory(trees=[])), *refused)
    expect_refusal(_pack(caller, "0" * 64), *refused)
    expect_refusal(caller.call("POST", f"trees/{'0' * 64}/blobs", BlobsWanted(blobs=["0" * 64])), *refused)


def check_a_worker_of_the_previous_version_gets_no_tree(central: CentralUnderTest) -> None:
    caller = Caller.enrol(central)
    caller.open_session(capabilities=())
    offer = caller.take_job()
    assert offer.tree is None


# What the checks share


def _files() -> dict[str, bytes]:
    """Return contents of each kind: empty, small, text, larger than a window, better with LZMA; with a name in another script."""
    chance = random.Random(unique("files"))
    noise = chance.randbytes(700_000)
    return {
        "dags/one.py": b"print('%s')\n" % chance.randbytes(8).hex().encode(),
        "dags/__init__.py": b"",
        "dags/\u00fcber/\u65e5\u672c.py": b"x = 1\n" * 300,
        "data/large.bin": noise,
        "data/text.csv": "".join(f"{n},{chance.randrange(10)}\n" for n in range(40_000)).encode(),
        "copy/of/one.py": b"x = 1\n" * 300,
    }


def _tree(files: Mapping[str, bytes]) -> Tree:
    return Tree.of(Entry(path, _sha256(content), len(content)) for path, content in files.items())


def _with_tree(central: CentralUnderTest, files: Mapping[str, bytes]) -> tuple[Caller, str]:
    """Return a worker that has a job, and the digest of the tree of *files*, which the job runs."""
    digest = central.publish(files)
    caller = Caller.connect(central)
    central.run_tree(caller.take_job().job_id, digest)
    return caller, digest


def check_statements_are_of_trees_that_the_worker_may_fetch(central: CentralUnderTest) -> None:
    secret = central.publish({"secret": b"of another worker"})
    caller, digest = _with_tree(central, {"a": b"a"})
    response = caller.call("GET", f"trees/{digest}/statements")
    assert response.status == 200, describe(response)
    assert decode(Statements, response.body).envelopes == []
    for other in (secret, "0" * 64, *FORBIDDEN_DIGESTS[:4]):
        expect_refusal(caller.call("GET", f"trees/{other}/statements"), ProblemCode.NOT_FOUND)


def _pack(caller: Caller, digest: str, query: str = "", headers: Mapping[str, str] | None = None) -> Response:
    sent = {"accept-encoding": "identity", **(headers or {})}
    return caller.call("GET", f"trees/{digest}/pack{query}", headers=sent)


def _contents(pack: bytes, digest: str) -> dict[str, bytes]:
    nothing: Callable[[str], Tree | None] = lambda _: None  # noqa: E731
    reader = PackReader(BytesIO(pack), digest=digest, bases=nothing)
    contents = {sha256: b"".join(pieces) for sha256, pieces in reader.blobs()}
    return {entry.path: contents[entry.sha256] for entry in reader.tree.entries}


def _encodings(pack: bytes, digest: str, files: Mapping[str, bytes]) -> set[int]:
    """Return the encodings of the pack's blobs, which follow their hashes."""
    hashes = [bytes.fromhex(_sha256(content)) for content in files.values()]
    return {pack[pack.rindex(sha256) + 32] for sha256 in hashes}


def _expect_range(caller: Caller, digest: str, whole: Response, first: int, last: int | None, query: str = "") -> None:
    response = _pack(caller, digest, query, {"range": f"bytes={first}-{'' if last is None else last}"})
    size = len(whole.body)
    end = size if last is None else min(last + 1, size)
    assert response.status == 206, f"bytes={first}-{last} of {size}: expected 206, got {describe(response)}"
    assert response.body == whole.body[first:end], f"bytes={first}-{last} of {size}: these are other bytes"
    assert response.headers.get("content-range") == f"bytes {first}-{end - 1}/{size}"
    assert response.headers.get("etag") == whole.headers["etag"]


def _is_strong_etag(etag: str) -> bool:
    return len(etag) > 2 and etag[0] == etag[-1] == '"'


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
