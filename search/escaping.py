"""Text that others chose, made harmless where it is shown: names of classes and files, reasons."""

from __future__ import annotations

import re

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What a terminal obeys instead of showing it (ECMA-48), and what turns the direction of text."""
_MARKDOWN = {ord(character): f"&#{ord(character)};" for character in "|[]`*\\"} | {
    ord("&"): "&amp;",
    ord("<"): "&lt;",
}
_EMPHASIS = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|~(?=~)|(?<=~)~")
"""Underscores within a word, as in `val_accuracy`, mean nothing."""
_ADDRESS = re.compile(r"\b(https?|ftp)://|\bwww\.", re.IGNORECASE)
"""What GitHub's Markdown makes a link of, although nothing marks it as one."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for the start of a formula (OWASP, CSV injection)."""
_NAME_LENGTH = 100


def readable(text: str) -> str:
    """Text for a terminal: control characters as Python's escapes for them, but for line ends."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def as_line(text: object) -> str:
    """Text in one line of Markdown that ends no cell, begins no link, tag, code or emphasis."""
    line = " ".join(readable(str(text)).split()).translate(_MARKDOWN)
    line = _EMPHASIS.sub(_entity, line)
    return _ADDRESS.sub(lambda found: found[0][:-1] + _entity(found[0][-1]), line)


def _entity(found: re.Match[str] | str) -> str:
    return f"&#{ord(found[0])};"


def as_cell(value: object) -> object:
    """A value for a CSV file: text that a spreadsheet would calculate gets an apostrophe."""
    if not isinstance(value, str):
        return value
    return f"'{readable(value)}" if value.startswith(_FORMULA) else readable(value)


def as_file_name(text: str) -> str:
    """Part of a file's name, of letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:_NAME_LENGTH]
