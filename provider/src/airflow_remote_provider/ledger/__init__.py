"""The domain: plain functions that take a `Session` and run in one transaction each. Only the ledger writes our tables.

:mod:`.jobs` holds the calls of the executor, :mod:`.dispatch` makes offers, :mod:`.leases` takes the calls of workers about their
jobs. :mod:`.workers`, :mod:`.sessions`, :mod:`.credentials` and :mod:`.rotation` are about workers, :mod:`.queues` and
:mod:`.queue_policy` about the rules of queues. :mod:`.expired_offers`, :mod:`.ended_tasks`, :mod:`.lost_jobs` and
:mod:`.retention` run periodically. :mod:`.views` only reads.

Lock order: the worker's row first, then jobs by id.
"""
