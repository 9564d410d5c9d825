"""Periodic work: expired offers, silent workers, history, metrics. One API process at a time does it."""
