"""A runtime that can't host tasks reports the cause and the remedy."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

from airflow_remote_worker.local import frames
from airflow_remote_worker.shim import explain


def test_the_frame_encoded_by_hand_can_be_decoded() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        explain.send_unable(theirs.fileno(), "no airflow in /opt/pythön" * 20)
        assert frames.receive(ours) == frames.Unable(reason="no airflow in /opt/pythön" * 20)


def test_an_interpreter_without_airflow_is_named_with_the_remedy(new_zygote: Callable[[str], Any], tmp_path_factory: Any) -> None:
    bare = tmp_path_factory.mktemp("bare") / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')  # -S: no site-packages, so neither msgspec nor airflow
    bare.chmod(0o755)
    zygote = new_zygote(str(bare))
    assert isinstance(zygote.first, frames.Unable)
    assert "can't import apache-airflow-task-sdk" in zygote.first.reason
    assert "requirements/runtime.lock" in zygote.first.reason
    assert zygote.process.wait(10) == 1
