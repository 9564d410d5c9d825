"""Jobs on this machine, from an accepted offer to a stored outcome."""
