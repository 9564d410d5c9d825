"""Fixtures that every suite may use: see `testkit/fixtures.py`."""

import sys
from pathlib import Path

# Suites are collected with --import-mode=importlib, which leaves sys.path alone.
_ROOT = str(Path(__file__).parent)
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

pytest_plugins = ["testkit.fixtures"]
