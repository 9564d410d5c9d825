"""The APIs that central serves: :mod:`.worker_v1` for workers, :mod:`.ui_v1` for users. Async and thin: the ledger decides.

Both use :mod:`.registry` (workers and their credentials), :mod:`.pool` (threads for ledger calls) and :mod:`.problems` (errors as
responses). Workers' calls pass :mod:`.admission`; :mod:`.dispatch` makes offers, :mod:`.gateway` passes Execution API calls on,
and :mod:`.duties` does the periodic work.
"""
