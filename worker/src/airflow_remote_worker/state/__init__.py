"""The state directory: all that a worker keeps on disk."""
