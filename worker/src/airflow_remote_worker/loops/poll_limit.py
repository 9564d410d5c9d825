"""Decides how long a poll may wait: as long as central asks for, unless the network closes idle requests earlier.

Two polls that were cut after about the same time show an idle limit on the way, not an outage: from then on polls are shorter.
The limit may disappear (another network, a proxy that was reconfigured), so a longer poll is tried now and then. The interval
between tries doubles with each failed one.
"""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

SHORTEST_S = 4.0
"""A poll that is cut sooner counts as an outage. Also the shortest poll that is ever asked for."""
ALIKE = 0.2
"""Two cuts are alike if they differ by less than this fraction of the longer one."""
BELOW_LIMIT = 0.8
"""The new poll time as a fraction of the time after which polls were cut: idle timers are coarse."""
LONGER = 1.5
"""The factor by which a try is longer than the limit."""
FIRST_TRY_AFTER_S = 3600.0
LAST_TRY_AFTER_S = 24 * 3600.0
GONE_AFTER_S = 600.0
"""A poll that lasted so much longer than it asked for spans a suspension of the machine, and shows nothing."""


class PollLimit:
    """Learns from how each poll ended. The caller passes the time, in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.limit_s: float | None = None
        """The longest wait that the network allows; None: no limit is known."""
        self._last_cut_s: float | None = None
        self._try_at_s = 0.0
        self._try_after_s = FIRST_TRY_AFTER_S
        self._trying = False

    def wait_s(self, *, wanted_s: float, now_s: float) -> float:
        """Return how long the next poll may wait when central asks for *wanted_s*."""
        self._trying = False
        if self.limit_s is None or wanted_s <= self.limit_s:
            return wanted_s
        if now_s < self._try_at_s:
            return self.limit_s
        self._trying = True
        return min(wanted_s, self.limit_s * LONGER)

    def note_answer(self, *, asked_s: float, lasted_s: float) -> None:
        """Note that a poll was answered after *lasted_s*."""
        if lasted_s < 0.9 * asked_s:
            return  # it was answered early, which shows nothing about idle limits
        if self._last_cut_s is not None and lasted_s >= self._last_cut_s:
            self._last_cut_s = None
        if self._trying and self.limit_s is not None and asked_s > self.limit_s:
            # The network allows that much: try more at the next poll, so that a limit that is gone is forgotten within minutes.
            self.limit_s = asked_s
            self._try_at_s, self._try_after_s = 0.0, FIRST_TRY_AFTER_S

    def note_cut(self, *, asked_s: float, lasted_s: float, now_s: float) -> None:
        """Note that a poll ended after *lasted_s* without an answer from central, although it had been sent."""
        # A poll that timed out was dropped silently, at an unknown time.
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
