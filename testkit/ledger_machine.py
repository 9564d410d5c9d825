"""The base class of state machines that test the ledger: each has a ledger of its own, in SQLite, with sequential ids."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis.stateful import RuleBasedStateMachine

from testkit.ledger import use_ledger, make_engine  # isort: skip

from testkit.machines import use_sequential_ids


class LedgerMachine(RuleBasedStateMachine):
    """A state machine with a ledger. A subclass that extends `teardown()` must always call this one."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        home = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._engine = make_engine(f"sqlite:///{home}/ledger.db")
        self._stack.callback(self._engine.dispose)
        self._stack.enter_context(use_sequential_ids())
        self._stack.enter_context(use_ledger(self._engine, home / "logs"))

    def teardown(self) -> None:
        self._stack.close()
