"""`greenback`, if the runtime has it: lets synchronous code wait on the event loop without blocking it."""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import Any

greenback: Any = None
"""The module, or None in a runtime that was made from an older lock."""
with suppress(ImportError):
    greenback = importlib.import_module("greenback")
