from __future__ import annotations

from pathlib import Path

import pytest
from airflow_remote_worker.errors import Damaged
from airflow_remote_worker.state import files
from airflow_remote_worker.state.trusted_keys import TrustedKeys, TrustFile


def test_keys_survive_one_damaged_file_and_not_two(tmp_path: Path) -> None:
    file = TrustFile(tmp_path, lambda path: path.unlink())
    assert file.load() == TrustedKeys()
    trusted = TrustedKeys(["k"], 2, {"runtime default": 7})
    file.store(trusted)
    file.path.write_bytes(b"x")
    assert file.load() == trusted
    for path in (file.path, files.copy_of(file.path)):
        path.write_bytes(b"x")
    with pytest.raises(Damaged, match="airflow-remote-worker trust pin"):
        file.load()
