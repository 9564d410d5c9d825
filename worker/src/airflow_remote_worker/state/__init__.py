"""The state directory: everything that a worker stores on disk."""
