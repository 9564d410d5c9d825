"""Releases of the worker's own software that central sends: installed, tested, handed over to, proven, or undone."""
