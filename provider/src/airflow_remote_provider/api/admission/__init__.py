"""Limits on what callers may cost one API process: calls under way, bytes, calls per second. Calls beyond them get `busy`."""
