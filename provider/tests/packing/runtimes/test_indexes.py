"""uv uses pip's index if it has none of its own."""

from __future__ import annotations

import os
from pathlib import Path

from airflow_remote_provider.packing.runtimes.indexes import index_environment, pip_files

CONFIGURATION = """
[global]
index-url = https://ann:secret@index.example/simple
extra_index_url = https://one.example/simple
    https://two.example/simple
cert = /etc/company.pem
[install]
trusted-host = index.example
find-links = {links} /missing
[list]
format = columns
"""


def given(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> dict[str, str]:
    path = tmp_path / "pip.conf"
    path.write_text(text.format(links=tmp_path))
    return index_environment({"HOME": str(tmp_path), **(environ or {})}, [path])


def test_pips_index_goes_to_uv(tmp_path: Path) -> None:
    assert given(tmp_path, CONFIGURATION) == {
        "UV_DEFAULT_INDEX": "https://ann:secret@index.example/simple",
        "UV_EXTRA_INDEX_URL": "https://one.example/simple https://two.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": str(tmp_path),  # uv fails if one of the directories is missing
        "SSL_CERT_FILE": "/etc/company.pem",
        "UV_INSECURE_HOST": "index.example",
    }


def test_pips_variables_count_more_than_its_files(tmp_path: Path) -> None:
    found = given(
        tmp_path, "[global]\nindex-url = https://a/\n", {"PIP_INDEX_URL": "https://b/", "PIP_PROXY": "http://proxy:3128"}
    )
    assert found == {"UV_DEFAULT_INDEX": "https://b/", "HTTP_PROXY": "http://proxy:3128", "HTTPS_PROXY": "http://proxy:3128"}


def test_what_is_set_for_uv_is_left_alone(tmp_path: Path) -> None:
    assert given(tmp_path, CONFIGURATION, {"UV_INDEX": "https://mine/"}) == {}
    assert "SSL_CERT_FILE" not in given(tmp_path, CONFIGURATION, {"SSL_CERT_FILE": "/mine.pem"})
    (tmp_path / ".config/uv").mkdir(parents=True)
    (tmp_path / ".config/uv/uv.toml").write_text('[[index]]\nurl = "https://mine/"\n')
    assert given(tmp_path, CONFIGURATION) == {}
    assert given(tmp_path, CONFIGURATION, {"UV_NO_CONFIG": "1"}) != {}


def test_directories_of_wheels_are_used_beside_pips_index(tmp_path: Path) -> None:
    found = given(tmp_path, CONFIGURATION, {"UV_FIND_LINKS": "/wheels"})
    assert found["UV_FIND_LINKS"] == f"/wheels,{tmp_path}"
    assert found["UV_DEFAULT_INDEX"].startswith("https://")
    assert "UV_FIND_LINKS" not in given(tmp_path, "", {"UV_FIND_LINKS": "/wheels"})


def test_pip_without_an_index_lets_uv_work_offline(tmp_path: Path) -> None:
    assert given(tmp_path, "[install]\nno-index = true\n") == {"UV_OFFLINE": "1"}
    assert given(tmp_path, "") == {}
    assert given(tmp_path, "no section") == {}


def test_files_are_read_where_pip_reads_them() -> None:
    files = list(pip_files({"HOME": "/home/ann", "XDG_CONFIG_DIRS": "/etc/xdg", "PIP_CONFIG_FILE": "/mine"}))
    assert [str(path) for path in files[:4]] == [
        "/etc/xdg/pip/pip.conf",
        "/etc/pip.conf",
        "/home/ann/.pip/pip.conf",
        "/home/ann/.config/pip/pip.conf",
    ]
    assert files[-1] == Path("/mine")
    assert list(pip_files({"PIP_CONFIG_FILE": os.devnull})) == []
