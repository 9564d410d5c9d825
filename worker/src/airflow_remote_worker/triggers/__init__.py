"""Triggers of deferred tasks, on the daemon's side. Start reading at :mod:`.keeper`; what runs them is `shim/triggers`."""
