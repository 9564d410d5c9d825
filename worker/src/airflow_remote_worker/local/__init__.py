"""Frames, files and the clock that the daemon and a shim share on this machine. Runs in both interpreters."""
