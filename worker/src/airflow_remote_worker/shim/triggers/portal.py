"""Imports `greenback` if the runtime has it: it lets synchronous code wait on the event loop without blocking the loop."""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import Any

greenback: Any = None
"""The module, or None in a runtime that was installed from an older lock file."""
with suppress(ImportError):
    greenback = importlib.import_module("greenback")
