"""Output on a terminal that cannot show every character: readable there, and never a traceback.

Our tables hold arrows and true minus signs, labels and file names hold whatever a person chose. A
terminal or log that is set to ASCII or Latin-1 gets the nearest plain text instead.
"""

from __future__ import annotations

import codecs
from io import TextIOWrapper
from typing import TextIO

_NAME = "faithdiff-plain"
_PLAIN = {
    "\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "\N{HYPHEN}": "-",
    "\N{NO-BREAK SPACE}": " ", "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{LEFT SINGLE QUOTATION MARK}": "'", "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"', "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{UPWARDS ARROW}": "^", "\N{DOWNWARDS ARROW}": "v", "\N{RIGHTWARDS ARROW}": "->",
    "\N{MULTIPLICATION SIGN}": "x", "\N{PLUS-MINUS SIGN}": "+-", "\N{MIDDLE DOT}": ".",
    "\N{LESS-THAN OR EQUAL TO}": "<=", "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{SUPERSCRIPT TWO}": "^2", "\N{BULLET}": "*",
}  # fmt: skip


def write_on_any_terminal(*streams: TextIO) -> None:
    """Let streams write what their encoding has no character for as plain text or an escape."""
    codecs.register_error(_NAME, _plain)
    for stream in streams:
        if isinstance(stream, TextIOWrapper):  # not what a test or a notebook put in its place
            stream.reconfigure(errors=_NAME)


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    first = error.object[error.start]
    return _PLAIN.get(first) or _escape(first), error.start + 1


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()
