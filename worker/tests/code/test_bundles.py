"""The code of jobs, fetched over HTTP from the fake central: once, verified, repaired, evicted, or declined."""

from __future__ import annotations

import errno
import hashlib
import time
from functools import partial
from pathlib import Path

import anyio
import pytest
from airflow_remote_protocol.messages import TreeRef
from airflow_remote_worker.code import bundles, trees
from airflow_remote_worker.code.bundles import CodeUnavailable
from airflow_remote_worker.state.free_space import NoRoom
from airflow_remote_worker.testing.code import cut, damage_byte, slow
from airflow_remote_worker.testing.fake_central import FakeCentral

from ..conftest import eventually
from .conftest import CodeBench, noise

pytestmark = pytest.mark.timeout(120)

FILES = {"a_dag.py": b"print(1)\n", "package/__init__.py": b"", "package/data.bin": noise(300_000)}


def test_a_tree_is_fetched_with_one_request_and_used_without_any(bench: CodeBench) -> None:
    async def steps() -> TreeRef:
        ref = await bench.offer(FILES)
        path = await bench.get(ref)
        assert path == bench.store.files_of(ref.digest)
        before = len(bench.central.requests)
        assert await bench.get(ref, "another job") == path
        assert len(bench.central.requests) == before
        return ref

    ref = bench.run(steps)
    assert bench.content(ref) == FILES
    assert len(bench.packs()) == 1
    assert bench.packs()[0].headers["accept-encoding"] == "identity"
    assert bench.code.trees == [ref.digest]
    eventually(lambda: bench.files() == [])


def test_a_check_of_2000_files_takes_little_time(bench: CodeBench) -> None:
    async def steps() -> float:
        ref = await bench.offer({f"package_{n % 50}/module_{n}.py": b"x = %d\n" % n for n in range(2000)})
        await bench.get(ref)
        took = []
        for _ in range(5):
            bench.code.recheck(ref.digest)
            began = time.process_time()
            await bench.get(ref)
            took.append(time.process_time() - began)
        return min(took)

    assert bench.run(steps) < 0.2, "the check of 2,000 files takes about 20 ms of processor time"


def test_many_jobs_that_wait_for_a_tree_cause_one_fetch(bench: CodeBench) -> None:
    async def steps() -> TreeRef:
        ref = await bench.offer(FILES)
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(bench.get, ref, f"job {number}")
        return ref

    ref = bench.run(steps)
    assert len(bench.packs()) == 1
    assert bench.content(ref) == FILES


def test_a_change_is_fetched_alone_and_versions_are_side_by_side(bench: CodeBench) -> None:
    after = {**FILES, "a_dag.py": b"print(2)\n"}

    async def steps() -> tuple[TreeRef, TreeRef]:
        one = await bench.offer(FILES)
        await bench.get(one)
        two = await bench.offer(after)
        await bench.get(two, "second job")
        return one, two

    one, two = bench.run(steps)
    assert (bench.content(one), bench.content(two)) == (FILES, after)
    assert bench.packs()[1].path.endswith(f"/pack?base={one.digest}")
    assert bench.central.code.pack_size(two.digest, one.digest) < 3 * len(b"print(2)\n") + 1024


def test_a_base_that_central_has_forgotten_costs_no_second_request(bench: CodeBench) -> None:
    async def steps() -> TreeRef:
        one = await bench.offer(FILES)
        await bench.get(one)
        two = await bench.offer({**FILES, "b.py": b"b"})
        bench.central.code.forget(one.digest)
        await bench.get(two, "second job")
        return two

    two = bench.run(steps)
    assert bench.content(two) == {**FILES, "b.py": b"b"}
    assert len(bench.packs()) == 2


def test_a_blob_that_arrives_damaged_is_requested_again_alone(bench: CodeBench) -> None:
    async def steps() -> TreeRef:
        ref = await bench.offer(FILES)
        size = bench.central.code.pack_size(ref.digest)
        bench.central.code.faults.append(damage_byte(size - 1000))  # in the largest file, which is last
        await bench.get(ref)
        return ref

    ref = bench.run(steps)
    assert bench.content(ref) == FILES
    assert len(bench.packs()) == 1
    assert len(bench.central.requests_to("/blobs")) == 1


def test_a_blob_that_is_always_damaged_is_declined_after_three_tries_and_nothing_is_there(bench: CodeBench) -> None:
    async def steps() -> None:
        ref = await bench.offer(FILES)
        bench.central.code.damage(FILES["package/data.bin"])
        with pytest.raises(CodeUnavailable, match=r"bundle 'dags' arrived damaged 3 times.*package/data\.bin.*nothing was run"):
            await bench.get(ref)
        assert not bench.store.has(ref.digest)
        bench.central.code.mend(FILES["package/data.bin"])
        await bench.get(ref, "a later job")
        assert bench.content(ref) == FILES

    bench.run(steps)
    assert len(bench.central.requests_to("/blobs")) == 3
    assert len(bench.packs()) == 2
    eventually(lambda: bench.files() == [])


@pytest.mark.parametrize("at", [0, 30, 300])
def test_a_damaged_beginning_is_fetched_again(bench: CodeBench, at: int) -> None:
    """The header and the manifest are at the beginning: without them, no part can be used."""

    async def steps() -> TreeRef:
        ref = await bench.offer(FILES)
        bench.central.code.faults.append(damage_byte(at))
        await bench.get(ref)
        return ref

    ref = bench.run(steps)
    assert bench.content(ref) == FILES


def test_a_tree_that_central_does_not_give_is_declined_with_its_words(bench: CodeBench) -> None:
    async def steps() -> None:
        ref = await bench.offer(FILES)
        bench.central.code.forget(ref.digest)
        with pytest.raises(CodeUnavailable, match=r"central does not give this worker the code of bundle 'dags'.*any more"):
            await bench.get(ref)

    bench.run(steps)


def test_what_a_task_damaged_is_repaired_with_one_request_for_it(bench: CodeBench) -> None:
    async def steps() -> TreeRef:
        ref = await bench.offer(FILES)
        path = await bench.get(ref)
        (path / "a_dag.py").chmod(0o644)
        (path / "a_dag.py").write_bytes(b"print(3)\n")
        (path / "package" / "data.bin").unlink()
        assert (await bench.get(ref) / "a_dag.py").read_bytes() == b"print(3)\n", "files are compared once a minute"
        bench.code.recheck(ref.digest)
        await bench.get(ref)
        return ref

    ref = bench.run(steps)
    assert bench.content(ref) == FILES
    (request,) = bench.central.requests_to("/blobs")
    asked = [hashlib.sha256(FILES[name]).hexdigest() for name in ("a_dag.py", "package/data.bin")]
    assert all(sha256.encode() in request.body for sha256 in asked)
    assert len(bench.packs()) == 1
    eventually(lambda: bench.files() == [])


def test_a_repair_succeeds_through_a_proxy_that_cuts_every_answer(bench: CodeBench) -> None:
    """Single blobs can't be continued. The whole pack can."""

    async def steps() -> TreeRef:
        ref = await bench.offer(FILES)
        path = await bench.get(ref)
        (path / "package" / "data.bin").unlink()
        bench.code.recheck(ref.digest)
        bench.central.code.always = bench.central.code.always_for_blobs = cut(100_000)
        await bench.get(ref)
        return ref

    ref = bench.run(steps)
    assert bench.content(ref) == FILES
    assert len(bench.central.requests_to("/blobs")) == 3
    eventually(lambda: bench.files() == [])


def test_a_tampered_cache_is_found_at_the_next_minute(bench: CodeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps() -> None:
        ref = await bench.offer(FILES)
        path = await bench.get(ref)
        (path / "a_dag.py").unlink()
        monkeypatch.setattr(bundles, "CHECK_EVERY_S", 0.0)
        assert (await bench.get(ref) / "a_dag.py").read_bytes() == FILES["a_dag.py"]

    bench.run(steps)


def test_the_fetch_of_a_stopped_job_goes_on_for_others(bench: CodeBench) -> None:
    async def steps() -> TreeRef:
        ref = await bench.offer(FILES)
        bench.central.code.always = slow(600_000)
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as stopped:
                tasks.start_soon(bench.get, ref, "goes on")
                with anyio.move_on_after(0.2):
                    await bench.get(ref, "stopped")
                stopped.cancel()
        return ref

    ref = bench.run(steps)
    assert bench.content(ref) == FILES
    assert len(bench.packs()) == 1


def test_a_fetch_that_nobody_waits_for_ends_and_is_continued_later(bench: CodeBench) -> None:
    files = {"a_dag.py": b"1", "data.bin": noise(2_000_000)}

    async def steps() -> tuple[TreeRef, int]:
        ref = await bench.offer(files)
        bench.central.code.faults.append(slow(1_500_000))
        with anyio.move_on_after(0.8):
            await bench.get(ref)
        await anyio.sleep(0.1)
        assert not bench.code._works
        here = bench.incoming.pack(ref.digest).stat().st_size
        assert 0 < here < 2_000_000
        await bench.get(ref)
        return ref, here

    ref, here = bench.run(steps)
    assert bench.content(ref) == files
    assert bench.packs()[1].headers["range"] == f"bytes={here}-"


def test_the_progress_is_reported_to_every_waiting_job(bench: CodeBench) -> None:
    async def steps() -> None:
        bench.central.code.always = slow(1_500_000)
        await bench.get(await bench.offer({"a_dag.py": b"1", "data.bin": noise(1_500_000)}))

    bench.run(steps)
    shown = [detail for detail in bench.details if detail]
    numbers = [int(detail.removeprefix("code ").removesuffix(" %")) for detail in shown]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) >= 4
    assert numbers[-1] == 100
    assert bench.details[-1] == ""


# Room


def test_without_room_nothing_is_requested(bench: CodeBench) -> None:
    async def steps() -> None:
        ref = await bench.offer(FILES)
        bench.free = lambda path: (200_000, 1000)
        with pytest.raises(NoRoom, match=r"disk full: code needs 0 MB in .*min_free_mb.*code\.path"):
            await bench.get(ref)

    bench.run(steps)
    assert bench.packs() == []
    assert bench.files() == []


def test_unused_trees_make_room_but_never_those_in_use(bench: CodeBench) -> None:
    def free(path: Path) -> tuple[int, int]:
        return 1_000_000 - 400_000 * len(bench.store.held()), 1000

    async def steps() -> None:
        one, two, three = [await bench.offer({"a_dag.py": noise(300_000, seed)}) for seed in range(3)]
        await bench.get(one, "job 1")
        await bench.get(two, "job 2")
        bench.free = free
        with pytest.raises(NoRoom):
            await bench.get(three, "job 3")
        assert {tree.digest for tree in bench.store.held()} == {one.digest, two.digest}
        bench.code.release("job 1")
        await bench.get(three, "job 3")
        assert {tree.digest for tree in bench.store.held()} == {two.digest, three.digest}

    bench.run(steps)


def test_above_the_limit_the_longest_unused_trees_go(central: FakeCentral, tmp_path: Path) -> None:
    bench = CodeBench(central, tmp_path, total_mb=0.8)

    async def steps() -> list[str]:
        made = []
        for seed in range(4):
            made.append(await bench.offer({"a_dag.py": noise(300_000, seed)}))
            await bench.get(made[-1], f"job {seed}")
            if seed != 1:
                bench.code.release(f"job {seed}")
            await anyio.sleep(0.02)  # so that uses have different times
        with anyio.fail_after(10):
            while len(bench.code.trees) > 2:
                await anyio.sleep(0.01)
        assert made[1].digest in bench.code.trees, "a job uses it"
        return [ref.digest for ref in made]

    digests = bench.run(steps)
    assert set(bench.code.trees) == {digests[1], digests[3]}


def test_a_disk_that_fills_up_meanwhile_fails_the_fetch_and_leaves_nothing(
    bench: CodeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def steps() -> None:
        ref = await bench.offer(FILES)

        def full(fd: int, mode: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(trees.os, "fchmod", full)
            with pytest.raises(OSError, match="No space left"):
                await bench.get(ref)
        assert not bench.store.has(ref.digest)
        await bench.get(ref, "a later job")

    bench.run(steps)
    eventually(lambda: bench.files() == [])


def test_room_is_made_when_the_disk_watch_asks(bench: CodeBench) -> None:
    async def steps() -> None:
        ref = await bench.offer(FILES)
        await bench.get(ref)
        await bench.code.free(1)
        assert bench.code.trees == [ref.digest]
        bench.code.release("job")
        await bench.code.free(1)
        assert bench.code.trees == []
        await bench.get(ref)
        assert bench.content(ref) == FILES

    bench.run(steps)
    assert len(bench.packs()) == 2


# Cuts


def test_a_pack_cut_again_and_again_arrives(bench: CodeBench) -> None:
    files = {"a_dag.py": b"1", "data.bin": noise(1_000_000)}

    async def steps() -> TreeRef:
        ref = await bench.offer(files)
        bench.central.code.always = cut(100_000)
        await bench.get(ref)
        return ref

    ref = bench.run(steps)
    assert bench.content(ref) == files
    starts = [int(request.headers.get("range", "bytes=0-").split("=")[1].split("-")[0]) for request in bench.packs()]
    assert starts == [n * 100_000 for n in range(len(starts))], "each request continues at the byte where the last was cut"


def test_an_outage_is_waited_out(bench: CodeBench) -> None:
    async def steps() -> TreeRef:
        ref = await bench.offer(FILES)
        bench.central.go_down()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(bench.get, ref))
            await anyio.sleep(0.3)
            bench.central.come_back()
        return ref

    assert bench.content(bench.run(steps)) == FILES
