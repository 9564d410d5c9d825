"""Triggers of deferred tasks, on the daemon's side. Start reading at :mod:`.keeper`; `shim/triggers` runs them."""
