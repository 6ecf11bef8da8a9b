"""Paths and patterns of files inside a folder: ``data/*.csv``, ``clean/**``, ``report.html``.

``*`` and ``?`` stay inside one name, ``**`` stands for any number of folders, ``[...]`` for one of these
characters. A pattern that names a folder means everything below it. Pure; used for what jobs hand out and
for what they take in.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_MAGIC: Final = re.compile(r"[*?\[]")
_SET: Final = re.compile(r"\[!?\]?[^\]/]*\]")


def is_plain(pattern: str) -> bool:
    """Whether it can name one path only."""
    return _MAGIC.search(pattern) is None


def is_match(path: str, pattern: str) -> bool:
    """Whether the pattern names this file, or a folder that it lies in."""
    return _compiled(pattern).fullmatch(path) is not None


def top(pattern: str) -> str:
    """The folder below which everything lies that it can name; empty: it may be anywhere."""
    kept: list[str] = []
    for part in pattern.split("/"):
        if not is_plain(part):
            break
        kept.append(part)
    else:
        kept.pop()
    return "/".join(kept)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = pattern.rstrip("/").split("/")
    text = ""
    for place, part in enumerate(parts):
        is_last = place == len(parts) - 1
        if part == "**":
            text += ".+" if is_last else "(?:[^/]+/)*"
        else:
            text += _of_name(part) + ("" if is_last else "/")
    return re.compile(f"{text}(?:/.+)?", re.DOTALL)


def _of_name(part: str) -> str:
    text, at = "", 0
    while at < len(part):
        letters = _SET.match(part, at)
        if letters is not None:
            found = letters.group()
            negated = found.startswith("[!")
            inner = found[2 if negated else 1 : -1].replace("\\", "\\\\").replace("[", "\\[")
            inner = inner.replace("]", "\\]").replace("^", "\\^")
            text += f"(?!/)[{'^' if negated else ''}{inner}]"
            at = letters.end()
            continue
        letter = part[at]
        text += {"*": "[^/]*", "?": "[^/]"}.get(letter, re.escape(letter))
        at += 1
    return text
