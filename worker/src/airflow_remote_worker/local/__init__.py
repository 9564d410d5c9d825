"""What the daemon and a shim share on this machine: frames, files, the clock. Runs in both interpreters."""
