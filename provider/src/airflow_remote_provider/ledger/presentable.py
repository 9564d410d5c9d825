"""Makes free text from a worker safe to show in tables, logs and pages, which programs read too.

The types of the protocol refuse ids and numbers that no honest worker sends. Free text, such as the text of an exception, may
hold anything; it is accepted and made harmless here, once, before it is stored.
"""

from __future__ import annotations

REPLACED = "\N{REPLACEMENT CHARACTER}"


def presentable(text: str, *, longest: int) -> str:
    """Return *text* on one line, cut to *longest* characters, without control characters.

    These are NUL, which databases refuse, and characters that control a terminal or the direction of writing.
    """
    if len(text) <= longest and text.isprintable():
        return text
    shown = "".join(_shown(char) for char in text[:longest])
    return shown if len(text) <= longest else shown[: longest - 1] + "…"


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    return " " if char.isspace() else REPLACED
