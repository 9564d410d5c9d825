"""Makes the fixtures of `testkit/fixtures.py` available to every suite."""

import sys
from pathlib import Path

# Suites are collected with --import-mode=importlib, which does not change sys.path.
_ROOT = str(Path(__file__).parent)
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

pytest_plugins = ["testkit.fixtures"]
