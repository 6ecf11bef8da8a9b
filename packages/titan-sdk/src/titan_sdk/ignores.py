"""Which files of a folder stay at home: the patterns of `.gitignore`, and what nobody wants packed.

Decides from names alone. Never opens anything but the ignore files it is handed; `packaging`
walks the folder and asks.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

FILES: Final = (".gitignore", ".titanignore")
"""Read in this order in each folder: the later one has the last word."""

NEVER: Final = (
    ".git/", ".hg/", ".svn/", ".venv/", "__pycache__/", "*.py[co]", ".titan/", "titan_workspace/",
    "node_modules/", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".tox/", ".nox/",
    ".ipynb_checkpoints/", ".DS_Store", "*.egg-info/",
)  # fmt: skip
"""Left out before any ignore file is read; `!name` in a `.titanignore` takes one back."""


class Rule(NamedTuple):
    """One pattern, and from which folder on it counts."""

    expression: re.Pattern[str]
    folders_only: bool
    keeps: bool
    """`!pattern`: not ignored after all."""

    def matches(self, path: str, *, is_folder: bool) -> bool:
        """Whether `path`, relative to the packed folder, is meant."""
        return (is_folder or not self.folders_only) and self.expression.match(path) is not None


def rules(text: str, base: str = "") -> list[Rule]:
    """The rules of an ignore file that lies in the folder `base`."""
    found = [rule(line, base) for line in text.splitlines()]
    return [one for one in found if one is not None]


def rule(line: str, base: str = "") -> Rule | None:
    """The rule in one line; None for an empty line or a comment."""
    pattern = line.rstrip("\r")
    while pattern.endswith(" ") and not pattern.endswith("\\ "):
        pattern = pattern[:-1]
    if not pattern or pattern.startswith("#"):
        return None
    keeps = pattern.startswith("!")
    pattern = pattern[1:] if keeps else pattern.removeprefix("\\")
    folders_only = pattern.endswith("/")
    pattern = pattern.rstrip("/")
    # A slash in the middle ties a pattern to its file's folder; without one it counts at any depth.
    anchored = "/" in pattern
    pattern = pattern.lstrip("/")
    if not pattern:
        return None
    prefix = re.escape(base + "/") if base else ""
    anywhere = "" if anchored else "(?:.*/)?"
    return Rule(re.compile(f"{prefix}{anywhere}{_translate(pattern)}\\Z"), folders_only, keeps)


def is_ignored(path: str, given: list[Rule], *, is_folder: bool) -> bool:
    """What the last rule that matches says."""
    for one in reversed(given):
        if one.matches(path, is_folder=is_folder):
            return not one.keeps
    return False


def globs(patterns: tuple[str, ...]) -> list[Rule]:
    """`include:` and `exclude:` of a pipeline: the same patterns, counted from the root."""
    return [one for one in (rule(pattern.lstrip("!")) for pattern in patterns) if one is not None]


def _translate(pattern: str) -> str:
    """A gitignore pattern as a regular expression over a path with forward slashes."""
    out: list[str] = []
    index = 0
    while index < len(pattern):
        rest = pattern[index:]
        if rest.startswith("**/"):
            out.append("(?:.*/)?")
            index += 3
        elif rest.startswith("**"):
            out.append(".*")
            index += 2
        elif rest[0] == "*":
            out.append("[^/]*")
            index += 1
        elif rest[0] == "?":
            out.append("[^/]")
            index += 1
        elif rest[0] == "[" and "]" in rest[2:]:
            end = rest.index("]", 2)
            inside = rest[1:end].replace("\\", "\\\\")
            inside = "^" + inside[1:] if inside[0] in "!^" else inside
            out.append(f"[{inside}]")
            index += end + 1
        elif rest[0] == "\\" and len(rest) > 1:
            out.append(re.escape(rest[1]))
            index += 2
        else:
            out.append(re.escape(rest[0]))
            index += 1
    return "".join(out)
