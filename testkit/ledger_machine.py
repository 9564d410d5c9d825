"""What state machines that ask the ledger have in common: a ledger of their own, in SQLite, whose ids come in a row."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis.stateful import RuleBasedStateMachine

from testkit.ledger import installed, make_engine  # isort: skip

from testkit.machines import counted_ids


class LedgerMachine(RuleBasedStateMachine):
    """What extends `teardown()` must call this one, whatever happens."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        home = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._engine = make_engine(f"sqlite:///{home}/ledger.db")
        self._stack.callback(self._engine.dispose)
        self._stack.enter_context(counted_ids())
        self._stack.enter_context(installed(self._engine, home / "logs"))

    def teardown(self) -> None:
        self._stack.close()
