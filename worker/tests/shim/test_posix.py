"""Descriptors that tell of an exit."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest
from airflow_remote_worker.shim import posix


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd is Linux's")
def test_the_descriptor_turns_readable_at_the_exit() -> None:
    process = subprocess.Popen(["sleep", "0.1"])
    watch = posix.watch_exit(process.pid)
    assert watch is not None
    assert select.select([watch], [], [], 10)[0] == [watch]
    assert process.poll() == 0
    os.close(watch)


def test_no_descriptor_is_no_error() -> None:
    assert posix.watch_exit(2**22 + 1) is None
