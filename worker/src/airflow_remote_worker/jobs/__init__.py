"""What becomes of an accepted offer on this machine."""
