"""The code of jobs on this machine."""
