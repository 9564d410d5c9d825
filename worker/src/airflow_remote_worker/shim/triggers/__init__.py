"""The trigger host: one process of the runtime that runs many triggers of deferred tasks. Start reading at :mod:`.program`."""
