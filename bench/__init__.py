"""`make bench`: the Remote Executor beside LocalExecutor, on one machine, in one run."""
