"""The daemon's background loops, one per module."""
