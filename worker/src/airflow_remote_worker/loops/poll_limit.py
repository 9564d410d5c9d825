"""Decides how long a poll may stay silent: central's wish, until the way shows that it cuts silent requests earlier.

Two polls cut after about the same time are a limit of something in between, not an outage: from then on we ask for less. The
limit may go away (another network, a proxy set right), so a longer poll is tried now and then; each failed try makes the next one
rarer.
"""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

SHORTEST_S = 4.0
"""What ends sooner is an outage; and no way is so impatient that we would ask more often than this."""
ALIKE = 0.2
"""Two cuts are alike if they differ by less than this part of the longer one."""
BELOW_LIMIT = 0.8
"""What we ask for, as a part of the time after which polls were cut: idle timers are coarse."""
LONGER = 1.5
"""How much more a try asks for."""
FIRST_TRY_AFTER_S = 3600.0
LAST_TRY_AFTER_S = 24 * 3600.0
GONE_AFTER_S = 600.0
"""A poll that seems to have lasted so much longer than it asked for fell into a suspended machine's sleep: it says nothing."""


class Patience:
    """Hears how each poll ended; told the time by its caller, in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.limit_s: float | None = None
        """The longest wait that this way bears; None: no limit is known."""
        self._last_cut_s: float | None = None
        self._try_at_s = 0.0
        self._try_after_s = FIRST_TRY_AFTER_S
        self._trying = False

    def wait_s(self, wanted_s: float, now_s: float) -> float:
        """Return what to ask for when central wants *wanted_s*."""
        self._trying = False
        if self.limit_s is None or wanted_s <= self.limit_s:
            return wanted_s
        if now_s < self._try_at_s:
            return self.limit_s
        self._trying = True
        return min(wanted_s, self.limit_s * LONGER)

    def note_answer(self, asked_s: float, lasted_s: float) -> None:
        """A poll was answered after *lasted_s*."""
        if lasted_s < 0.9 * asked_s:
            return  # it had news: nothing was learned about silence
        if self._last_cut_s is not None and lasted_s >= self._last_cut_s:
            self._last_cut_s = None
        if self._trying and self.limit_s is not None and asked_s > self.limit_s:
            # Bears that much: go on from there at the next poll, so that a limit that is gone is forgotten within minutes.
            self.limit_s = asked_s
            self._try_at_s, self._try_after_s = 0.0, FIRST_TRY_AFTER_S

    def note_cut(self, asked_s: float, lasted_s: float, now_s: float) -> None:
        """A poll ended after *lasted_s* without an answer of central's, although it had been sent."""
        # One that came back neither in time nor later was lost without a word: when, we can't know.
        silent_s, was_lost = min(lasted_s, asked_s), lasted_s >= asked_s
        if silent_s < SHORTEST_S or lasted_s > asked_s + GONE_AFTER_S:
            return
        if self._trying:
            self._trying = False
            self._try_after_s = min(LAST_TRY_AFTER_S, 2 * self._try_after_s)
            self._try_at_s = now_s + self._try_after_s
            return
        last_s, self._last_cut_s = self._last_cut_s, silent_s
        if last_s is None or abs(last_s - silent_s) > ALIKE * max(last_s, silent_s):
            return
        self.limit_s = max(SHORTEST_S, asked_s / 2 if was_lost else BELOW_LIMIT * min(last_s, silent_s))
        self._last_cut_s = None
        self._try_at_s = now_s + self._try_after_s
        log.warning(
            "polls are cut after %.0f s on the way to central: asking for %.0f s from now on; a proxy or load balancer in between"
            " has an idle limit that is better raised",
            min(last_s, silent_s),
            self.limit_s,
        )
