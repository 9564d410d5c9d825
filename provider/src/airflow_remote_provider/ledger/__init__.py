"""The domain: plain functions, `Session` in, facts out; one verb, one transaction. Only the ledger writes our tables.

Files: :mod:`.jobs` (the executor's verbs), :mod:`.dispatch` (queued → offered), :mod:`.leases` (what a worker says of its jobs),
:mod:`.workers`, :mod:`.credentials`, :mod:`.sweep` (what time does),
:mod:`.queues` (people's rules), :mod:`.audit`, :mod:`.errors`. Rows are locked worker first,
then jobs by id.
"""
