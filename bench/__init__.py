"""`make bench`: the Remote Executor beside its peers, on one machine, in one run. Nothing here ever passes or fails.

`__main__` says what is measured in which order; `deployment` starts it all; `workloads`, `holding`, `fleet` and `cold_start` run
what is measured; `figures` makes medians and ratios of it; `report` prints and writes them.
"""
