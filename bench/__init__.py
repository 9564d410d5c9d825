"""`make bench`: compares the Remote Executor with its peers on one computer, in one run. It measures; it never passes or fails.

`__main__` defines the measurements and their order; `deployment` starts the processes; `workloads`, `holding`, `fleet` and
`cold_start` measure; `figures` computes medians and ratios; `report` prints and writes them.
"""
