"""Transfers that are cut, limited, changed or killed, over HTTP from the fake central."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from airflow_remote_protocol.messages import Poll, TreeRef
from airflow_remote_protocol.packs import encode_blob
from airflow_remote_worker.code import bundles
from airflow_remote_worker.code import fetch as fetch_module
from airflow_remote_worker.code.fetch import LEAST_WINDOW, MOST_WINDOW, Incoming, Note, RateLimit
from airflow_remote_worker.testing.code import CodeAnswer, CodeRequest, Fault, cut, damage_byte, in_turn, other_etag, slow
from airflow_remote_worker.testing.fake_central import FakeCentral

from ..conftest import HandClock, eventually
from .conftest import CodeBench, noise

pytestmark = pytest.mark.timeout(120)

LARGE = {"a_dag.py": b"print(1)\n", "data.bin": noise(1_000_000)}
SCRIPT = Path(__file__).with_name("fetch_until_killed.py")


def ranges(bench: CodeBench) -> list[str]:
    return [request.headers.get("range", "") for request in bench.packs()]


def fetch(bench: CodeBench, files: dict[str, bytes], *faults: Fault, always: Fault | None = None) -> TreeRef:
    async def steps() -> TreeRef:
        ref = await bench.offer(files)
        bench.central.code.faults += faults
        bench.central.code.always = always
        await bench.get(ref)
        return ref

    ref = bench.run(steps)
    assert bench.content(ref) == files
    return ref


def test_after_a_cut_the_rest_is_requested_in_windows(bench: CodeBench) -> None:
    fetch(bench, {"data.bin": noise(5 << 20)}, cut(1000))
    etag = bench.packs()[1].headers["if-range"]
    assert re.fullmatch('"[0-9a-f]{64}"', etag)
    begin, expected = 1000, [""]
    for window in (1 << 20, 2 << 20, 4 << 20):
        expected.append(f"bytes={begin}-{begin + window - 1}")
        begin += window
    assert ranges(bench) == expected
    assert {request.headers.get("if-range") for request in bench.packs()[1:]} == {etag}


def test_a_window_is_never_larger_than_the_limit(bench: CodeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "LEAST_WINDOW", 10_000)
    monkeypatch.setattr(fetch_module, "MOST_WINDOW", 40_000)
    fetch(bench, {"data.bin": noise(200_000)}, cut(1))
    sizes = [int(b) - int(a) + 1 for a, b in (re.findall(r"\d+", asked) for asked in ranges(bench)[1:])]
    assert sizes[:3] == [10_000, 20_000, 40_000]
    assert set(sizes[3:]) == {40_000}
    assert (LEAST_WINDOW, MOST_WINDOW) == (1 << 20, 8 << 20)


def test_a_slow_window_is_not_doubled(bench: CodeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "LEAST_WINDOW", 20_000)
    monkeypatch.setattr(fetch_module, "WIDEN_WITHIN_S", 0.0)
    fetch(bench, {"data.bin": noise(100_000)}, cut(1))
    assert {int(b) - int(a) + 1 for a, b in (re.findall(r"\d+", asked) for asked in ranges(bench)[1:])} == {20_000}


def test_a_window_that_is_cut_makes_the_next_one_small_again(bench: CodeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "LEAST_WINDOW", 10_000)
    fetch(bench, {"data.bin": noise(150_000)}, cut(1), lambda _, a: a, lambda _, a: a, cut(5_000))
    sizes = [int(b) - int(a) + 1 for a, b in (re.findall(r"\d+", asked) for asked in ranges(bench)[1:])]
    assert sizes[:4] == [10_000, 20_000, 40_000, 10_000]


@pytest.mark.parametrize("after", [0, 1, 50, 299, 300, 301, 5_000])
def test_a_pack_cut_at_any_byte_is_continued_there(bench: CodeBench, after: int) -> None:
    fetch(bench, {"a.py": b"x", "data.bin": noise(8_000)}, cut(after))
    assert ranges(bench)[1].startswith(f"bytes={after}-")


def test_a_cut_may_be_anywhere_in_a_pack(bench: CodeBench) -> None:
    """Every fifth byte, as each takes two requests. `test_trees.py` cuts a pack at every byte."""

    async def steps() -> None:
        ref = await bench.offer({"a.py": b"x"})
        places = range(0, bench.central.code.pack_size(ref.digest), 5)
        for after in places:
            bench.central.code.faults.append(cut(after))
            await bench.get(ref)
            bench.code.release("job")
            assert bench.content(ref) == {"a.py": b"x"}
            await bench.code.free(1)
        assert len(bench.packs()) == 2 * len(places)

    bench.run(steps)


def test_a_pack_that_has_changed_is_fetched_from_its_beginning(bench: CodeBench) -> None:
    def changed(request: CodeRequest, answer: CodeAnswer) -> CodeAnswer:
        return CodeAnswer(200, whole.body, whole.headers)

    async def steps() -> TreeRef:
        nonlocal whole
        ref = await bench.offer(LARGE)
        store = bench.central.code
        whole = store.answer_pack(ref.digest, CodeRequest("", {}))
        store.faults += [in_turn(other_etag, cut(400_000)), changed]
        await bench.get(ref)
        return ref

    whole = CodeAnswer(200, b"", {})
    ref = bench.run(steps)
    assert bench.content(ref) == LARGE
    assert bench.packs()[1].headers["if-range"] == f'"{"e" * 64}"'


def test_a_part_of_another_pack_is_never_appended(bench: CodeBench) -> None:
    """As from a proxy that ignores `If-Range`: 206 with another ETag."""
    ref = fetch(bench, LARGE, cut(400_000), other_etag)
    assert ranges(bench)[2] == f"bytes=0-{LEAST_WINDOW - 1}"
    assert bench.content(ref) == LARGE


def test_through_a_proxy_that_drops_ranges_the_whole_pack_is_read_again(bench: CodeBench) -> None:
    bench.central.code.ignores_ranges = True
    fetch(bench, LARGE, cut(700_000))
    assert len(bench.packs()) == 2


def test_a_wrong_byte_in_any_part_ends_with_the_right_files(bench: CodeBench) -> None:
    async def steps() -> None:
        files = {"a.py": b"print('hello')\n" * 5, "b.py": noise(50)}
        ref = await bench.offer(files)
        size = bench.central.code.pack_size(ref.digest)
        for at in range(0, size, 3):
            bench.central.code.faults.append(damage_byte(at))
            await bench.get(ref)
            assert bench.content(ref) == files, f"with a wrong byte at {at}"
            bench.code.release("job")
            await bench.code.free(1)

    bench.run(steps)


def test_an_answer_without_content_is_no_tight_loop(bench: CodeBench) -> None:
    def empty(request: CodeRequest, answer: CodeAnswer) -> CodeAnswer:
        return CodeAnswer(206, b"", {**answer.headers, "content-range": answer.headers["content-range"]})

    async def steps() -> None:
        ref = await bench.offer(LARGE)
        bench.central.code.faults.append(cut(1000))
        bench.central.code.always = empty
        with anyio.move_on_after(1.0):
            await bench.get(ref)
        assert len(bench.packs()) < 60
        bench.central.code.always = None
        await bench.get(ref)

    bench.run(steps)


def test_a_proxy_s_page_is_no_pack(bench: CodeBench) -> None:
    async def steps() -> None:
        ref = await bench.offer(LARGE)
        bench.central.answer_like_a_proxy(200, b"<html><title>Log in</title>")
        with anyio.move_on_after(0.5):
            await bench.get(ref)
        bench.central.answer_as_central()
        await bench.get(ref)
        assert bench.content(ref) == LARGE

    bench.run(steps)


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 50])
def test_a_damaged_note_starts_the_pack_again(bench: CodeBench, content: bytes) -> None:
    async def steps() -> None:
        ref = await bench.offer(LARGE)
        bench.central.code.faults.append(slow(500_000))
        with anyio.move_on_after(0.8):
            await bench.get(ref)
        (bench.incoming.root / f"{ref.digest}.json").write_bytes(content)
        await bench.get(ref)
        assert bench.content(ref) == LARGE

    bench.run(steps)
    assert ranges(bench) == ["", ""]


def test_a_damaged_part_is_noticed_and_mended(bench: CodeBench) -> None:
    async def steps() -> None:
        ref = await bench.offer(LARGE)
        bench.central.code.faults.append(slow(500_000))
        with anyio.move_on_after(1.2):
            await bench.get(ref)
        pack = bench.incoming.pack(ref.digest)
        content = bytearray(pack.read_bytes())
        assert len(content) > 250_000
        content[-100_000:] = bytes(100_000)  # as after a power cut
        pack.write_bytes(content)
        await bench.get(ref)
        assert bench.content(ref) == LARGE

    bench.run(steps)
    assert len(bench.central.requests_to("/blobs")) == 1


def test_parts_are_kept_a_day(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path / "incoming")
    incoming.prepare()
    for digest, age_s in (("a" * 64, 90_000), ("b" * 64, 80_000), ("c" * 64, 90_000)):
        opened = incoming.open(digest, "", lzma=True)
        opened.describe(Note("", "etag", True, 100))
        opened.append(b"part")
        for path in incoming.root.glob(f"{digest}*"):
            os.utime(path, (time.time() - age_s,) * 2)
    incoming.drop_old(but={"c" * 64})
    assert sorted(path.name[0] for path in incoming.root.iterdir()) == ["b", "b", "c", "c"]


def test_a_part_with_lzma_is_not_continued_by_an_interpreter_without_it(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path / "incoming")
    incoming.prepare()
    opened = incoming.open("a" * 64, "", lzma=True)
    opened.describe(Note("", "etag", True, 100))
    opened.append(b"part")
    assert incoming.open("a" * 64, "", lzma=True).size == 4
    assert incoming.open("a" * 64, "", lzma=False).size == 0


def test_without_lzma_central_is_asked_for_none(bench: CodeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"text.csv": "".join(f"{n},{n % 7}\n" for n in range(60_000)).encode()}

    async def steps() -> TreeRef:
        bench.central.code.encode = encode_blob
        ref = await bench.offer(files)
        with monkeypatch.context() as patched:
            patched.setattr(bundles, "HAS_LZMA", False)
            await bench.get(ref)
        return ref

    ref = bench.run(steps)
    assert bench.content(ref) == files
    assert bench.packs()[0].path.endswith("?lzma=0")


# Rate


def test_the_rate_is_kept_on_average_and_unused_time_is_not_saved_up(clock: HandClock) -> None:
    limit = RateLimit(80, clock)  # 10,000 bytes a second

    async def steps() -> None:
        began = clock.now
        for _ in range(10):
            await limit.take(5_000)
        assert clock.now - began == pytest.approx(5.0)
        clock.now += 100
        began = clock.now
        await limit.take(10_000)
        assert clock.now - began == pytest.approx(1.0)

    anyio.run(steps)


def test_two_fetches_share_the_rate(central: FakeCentral, tmp_path: Path) -> None:
    bench = CodeBench(central, tmp_path, kbit_s=1600)  # 200,000 bytes a second

    async def steps() -> float:
        refs = [await bench.offer({"data.bin": noise(150_000, seed)}) for seed in range(2)]
        began = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for number, ref in enumerate(refs):
                tasks.start_soon(bench.get, ref, number)
        return time.monotonic() - began

    assert 1.4 < bench.run(steps) < 6


def test_polls_are_answered_at_once_while_code_is_fetched_at_a_limited_rate(central: FakeCentral, tmp_path: Path) -> None:
    bench = CodeBench(central, tmp_path, kbit_s=800)
    took: list[float] = []

    async def poll(stop: anyio.Event) -> None:
        while not stop.is_set():
            began = time.monotonic()
            await bench.link.poll(Poll(free_slots=0, intent_revision=1, wait_s=0))
            took.append(time.monotonic() - began)
            await anyio.sleep(0.02)

    async def steps() -> None:
        ref = await bench.offer({"data.bin": noise(200_000)})
        stop = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(poll, stop)
            await bench.get(ref)
            stop.set()

    bench.run(steps)
    assert len(took) > 10
    assert sorted(took)[len(took) // 2] < 0.2


# kill -9


def kill_in(bench: CodeBench, root: Path, ref: TreeRef, phase: str, is_there: Callable[[str], bool]) -> None:
    credential, session = bench.link.credential, bench.link.session_id
    argv = [sys.executable, str(SCRIPT), bench.central.url, str(session), credential, str(root), ref.digest, phase]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if is_there(line.strip()):
            break
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("phase", "is_there", "more_requests"),
    [
        ("fetch", lambda line: line.startswith("code") and int(line.split()[1]) >= 30, 1),
        ("unpack", lambda line: line == "here", 0),
        ("complete", lambda line: line == "here", 0),
        ("end", lambda line: line.startswith("done"), 0),
    ],
)
def test_kill_9_in_any_phase_loses_nothing(
    bench: CodeBench, tmp_path: Path, phase: str, is_there: Callable[[str], bool], more_requests: int
) -> None:
    files = {**LARGE, "b_dag.py": b"2", "c_dag.py": b"3", "same.py": b"3"}

    async def steps() -> TreeRef:
        ref = await bench.offer(files)
        bench.central.code.faults.append(slow(700_000))
        await anyio.to_thread.run_sync(kill_in, bench, tmp_path / "code", ref, phase, is_there)
        before = len(bench.packs())
        assert bench.store.has(ref.digest) == (phase == "end")
        bench.store.prepare()  # as the next daemon does
        await bench.get(ref)
        assert len(bench.packs()) - before == more_requests
        return ref

    ref = bench.run(steps)
    assert bench.content(ref) == files
    if phase == "fetch":
        begin = int(re.findall(r"\d+", ranges(bench)[-1])[0])
        assert begin > 250_000, "what had arrived was not requested again"
    eventually(lambda: bench.files() == [])


# Memory


def test_a_large_pack_takes_little_memory(bench: CodeBench) -> None:
    """The budget is 40 MB. Central, in this process, holds the pack several times, so only our allocations are measured."""
    files = {"data.bin": noise(24 << 20), "text.csv": b"a,b\n" * (6 << 20)}

    async def steps() -> int:
        ref = await bench.offer(files)
        whole = bench.central.code.answer_pack(ref.digest, CodeRequest("", {}))

        def prepared(request: CodeRequest, answer: CodeAnswer) -> CodeAnswer:
            return whole

        bench.central.code.always = prepared
        tracemalloc.start()
        before = tracemalloc.take_snapshot()
        peak = [0]

        async def watch() -> None:
            while True:
                snapshot = tracemalloc.take_snapshot().compare_to(before, "filename")
                ours = [found for found in snapshot if "/testing/" not in found.traceback[0].filename]
                peak[0] = max(peak[0], sum(max(0, found.size_diff) for found in ours))
                await anyio.sleep(0.05)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await bench.get(ref)
            tasks.cancel_scope.cancel()
        tracemalloc.stop()
        return peak[0]

    assert bench.run(steps, within_s=100) < 40_000_000
