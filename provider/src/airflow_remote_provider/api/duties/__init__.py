"""What time asks for: expired offers, silent workers, history, metrics. One API process at a time does it."""
