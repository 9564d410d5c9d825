"""The daemon's side tasks, one per file."""
