"""What the plugin registers, with and without the built dashboard."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from airflow_remote_provider import dashboard, plugin
from airflow_remote_provider.plugin import RemotePlugin


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the built dashboard. Empty, as in an installation without the dashboard."""
    monkeypatch.setattr(plugin, "FILES", tmp_path)
    monkeypatch.setattr(plugin, "explain_missing", lambda: dashboard.explain_missing(tmp_path))
    return tmp_path


def _prefixes(registered: RemotePlugin) -> set[str]:
    return {app["url_prefix"] for app in registered.fastapi_apps}


def test_without_the_built_file_no_page_is_registered_and_the_log_says_why(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    registered = RemotePlugin()
    with caplog.at_level(logging.WARNING):
        assert registered.react_apps == []
    assert "the dashboard is not in this installation" in caplog.text
    assert "reinstall airflow-provider-remote" in caplog.text
    assert _prefixes(registered) == {"/remote/v1", "/remote/ui/v1"}


def test_with_the_built_file_each_page_names_it(files: Path) -> None:
    (files / dashboard.BUNDLE).write_text("built")
    registered = RemotePlugin()
    assert {app["destination"] for app in registered.react_apps} == {"nav", "dashboard", "task_instance"}
    assert all(app["bundle_url"].startswith(f"remote/static/{dashboard.BUNDLE}?") for app in registered.react_apps)
    assert "/remote/static" in _prefixes(registered)
