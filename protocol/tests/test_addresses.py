"""Addresses of central: which are accepted, and which are safe for a secret."""

from __future__ import annotations

import pytest
from airflow_remote_protocol.addresses import BadAddress, is_loopback, parse_address


@pytest.mark.parametrize(
    ("url", "kept", "is_safe"),
    [
        ("https://airflow.example.com/sub/", "https://airflow.example.com/sub", True),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", True),
        ("http://[::1]:8080/", "http://[::1]:8080", True),
        ("http://a.localhost", "http://a.localhost", True),
        ("http://10.0.0.1", "http://10.0.0.1", False),
        ("http://localhost.example.com", "http://localhost.example.com", False),
    ],
)
def test_the_last_slash_is_removed_and_safety_is_reported(url: str, kept: str, is_safe: bool) -> None:
    assert parse_address(url) == (kept, is_safe)


@pytest.mark.parametrize(
    "url", ["", "airflow.example.com", "ftp://a", "https://", "https://a:port", "https://[::1", "https://a:99999"]
)
def test_a_text_that_is_not_a_web_address_is_refused(url: str) -> None:
    with pytest.raises(BadAddress, match="not a web address"):
        parse_address(url)


@pytest.mark.parametrize("url", ["https://u:p@a", "https://u@a", "https://a?x=1", "https://a#x"])
def test_an_address_with_more_than_scheme_host_and_path_is_refused(url: str) -> None:
    with pytest.raises(BadAddress, match="no user, password, query or fragment") as refused:
        parse_address(url)
    assert "u:p" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "is_here"), [("localhost", True), ("127.9.9.9", True), ("::1", True), ("notlocalhost", False), ("", False)]
)
def test_this_machine_is_recognised_by_name_and_address(host: str, is_here: bool) -> None:
    assert is_loopback(host) is is_here
