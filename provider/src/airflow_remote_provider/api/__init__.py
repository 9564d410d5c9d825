"""What workers (and, later, browsers) call. Async and thin: decisions are the ledger's.

Files: :mod:`.app` puts it together (:mod:`.central`), :mod:`.worker_v1` has the routes, :mod:`.execution` that of the gateway,
:mod:`.auth` knows workers, :mod:`.waiting` parks polls, :mod:`.dispatcher` fills them, :mod:`.duties` does what time asks for,
:mod:`.gateway` passes Execution API calls on.
"""
