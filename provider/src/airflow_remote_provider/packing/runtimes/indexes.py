"""Lets uv use the package index that pip is configured with: many companies configure only pip.

The settings go to uv in its environment, because command lines are visible to every user of the computer.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

UV_INDEXES = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_OFFLINE",
    "UV_CONFIG_FILE",
)
"""If one of these is set, uv is configured, and pip's settings are not used."""
UV_FILE_WORDS = ("index", "find-links")
SECTIONS = ("global", "install")
OPTIONS = ("index-url", "extra-index-url", "find-links", "no-index", "cert", "client-cert", "trusted-host", "proxy")


def index_environment(environ: Mapping[str, str], files: Iterable[Path] | None = None) -> dict[str, str]:
    """Return the variables that uv needs beside *environ* to use pip's index; empty if uv has settings of its own.

    *files* are pip's files of configuration, those that count least first; default: where pip looks.
    """
    if any(environ.get(name) for name in UV_INDEXES) or _uv_files_name_an_index(environ):
        return {}
    pip = _pip_options(environ, pip_files(environ) if files is None else files)
    found: dict[str, str] = {}
    if "index-url" in pip:
        found["UV_DEFAULT_INDEX"] = pip["index-url"].strip()
    if extra := pip.get("extra-index-url", "").split():
        found["UV_EXTRA_INDEX_URL"] = " ".join(extra)
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip, which takes the newest version of all indexes
    if links := [link for link in pip.get("find-links", "").split() if "://" in link or Path(link).exists()]:
        found["UV_FIND_LINKS"] = ",".join(links)
    if pip.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        found["UV_OFFLINE"] = "1"  # uv has no variable for `--no-index`
    if "cert" in pip:
        found["SSL_CERT_FILE"] = pip["cert"]
    if "client-cert" in pip:
        found["SSL_CLIENT_CERT"] = pip["client-cert"]
    if trusted := pip.get("trusted-host", "").split():
        found["UV_INSECURE_HOST"] = " ".join(trusted)
    if "proxy" in pip:
        found |= {"HTTP_PROXY": pip["proxy"], "HTTPS_PROXY": pip["proxy"]}
    lower = {name.lower() for name in environ if environ[name]}
    missing = {name: value for name, value in found.items() if name.lower() not in lower}
    if environ.get("UV_FIND_LINKS") and links:  # wheels beside the index, not instead of it
        missing["UV_FIND_LINKS"] = ",".join((environ["UV_FIND_LINKS"], *links))
    return missing


def pip_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the places of pip's configuration, those that count least first."""
    if environ.get("PIP_CONFIG_FILE") == os.devnull:
        return
    home = Path(environ.get("HOME") or Path.home())
    for directory in reversed((environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)):
        yield Path(directory, "pip/pip.conf")
    yield Path("/etc/pip.conf")
    yield home / ".pip/pip.conf"
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "pip/pip.conf")
    yield Path(sys.prefix, "pip.conf")
    if named := environ.get("PIP_CONFIG_FILE"):
        yield Path(named)


def _pip_options(environ: Mapping[str, str], files: Iterable[Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):  # pip itself would say so
            continue
        for section in SECTIONS:
            if parser.has_section(section):
                found.update((name.replace("_", "-"), value) for name, value in parser.items(section))
    for option in OPTIONS:
        if value := environ.get(f"PIP_{option.upper().replace('-', '_')}"):
            found[option] = value
    return {name: value.strip() for name, value in found.items() if name in OPTIONS and value.strip()}


def _uv_files_name_an_index(environ: Mapping[str, str]) -> bool:
    if environ.get("UV_NO_CONFIG", "").lower() in ("1", "true"):
        return False
    home = Path(environ.get("HOME") or Path.home())
    places = (Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "uv/uv.toml"), Path("/etc/uv/uv.toml"))
    for path in places:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if any(word in text for word in UV_FILE_WORDS):
            return True
    return False
