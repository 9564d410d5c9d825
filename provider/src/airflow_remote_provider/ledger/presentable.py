"""What comes from a worker, as people may be shown it: in tables, logs and pages, whose readers are programs too.

Refused is what no honest worker says (ids, numbers: the protocol's types). Free text is taken as it comes and made harmless here,
once, before it is stored: an exception's text may hold anything.
"""

from __future__ import annotations

REPLACED = "\N{REPLACEMENT CHARACTER}"


def presentable(text: str, *, longest: int) -> str:
    """Return *text* on one line, without control characters (NUL, which databases refuse; those that steer a terminal or turn the
    direction of writing), and cut to *longest*."""
    if len(text) <= longest and text.isprintable():
        return text
    shown = "".join(_shown(char) for char in text[:longest])
    return shown if len(text) <= longest else shown[: longest - 1] + "…"


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    return " " if char.isspace() else REPLACED
