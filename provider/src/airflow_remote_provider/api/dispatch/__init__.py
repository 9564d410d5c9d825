"""Offers: who waits for work, what wakes the dispatcher, and which job goes to whom."""
