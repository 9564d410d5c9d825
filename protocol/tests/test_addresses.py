"""Where a secret may be sent."""

from __future__ import annotations

import pytest
from airflow_remote_protocol.addresses import BadAddress, checked_address, is_loopback


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
def test_it_is_kept_without_its_last_slash_and_known_to_be_safe_or_not(url: str, kept: str, is_safe: bool) -> None:
    assert checked_address(url) == (kept, is_safe)


@pytest.mark.parametrize(
    "url", ["", "airflow.example.com", "ftp://a", "https://", "https://a:port", "https://[::1", "https://a:99999"]
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(BadAddress, match="not a web address"):
        checked_address(url)


@pytest.mark.parametrize("url", ["https://u:p@a", "https://u@a", "https://a?x=1", "https://a#x"])
def test_an_address_holds_no_more_than_where_central_is(url: str) -> None:
    with pytest.raises(BadAddress, match="no user, password, query or fragment") as refused:
        checked_address(url)
    assert "u:p" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "is_here"), [("localhost", True), ("127.9.9.9", True), ("::1", True), ("notlocalhost", False), ("", False)]
)
def test_this_machine_is_known_by_name_and_address(host: str, is_here: bool) -> None:
    assert is_loopback(host) is is_here
