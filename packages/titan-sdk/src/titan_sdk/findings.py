"""What is wrong with a pipeline file, each with its place: collected first, shown all at once.

Decides how a finding looks to a person. Never reads files and never decides what is wrong; the
pipeline reader and the packer make findings, the client raises them, `titan validate` prints them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from titan_proto.errors import InvalidSpec, Problem

ERROR = "error"
WARNING = "warning"
INFO = "info"

CARETS_MAX = 60
"""A value of a whole paragraph is not underlined to its end."""
LINE_CHARS_MAX = 160
"""Of a longer source line only the part around the finding is shown."""


class Place(NamedTuple):
    """Where something stands in a text file; lines and columns count from 1."""

    line: int
    column: int
    width: int = 1


class Finding(NamedTuple):
    """One thing to say about one place of one file."""

    severity: str
    code: str
    message: str
    place: Place
    hint: str = ""

    def head(self, path: str) -> str:
        """The line that editors and people can jump from."""
        line, column, _ = self.place
        return f"{path}:{line}:{column}: {self.severity}[{self.code}] {self.message}"


class Source(NamedTuple):
    """A file's name, as the user gave it, and its lines."""

    path: str
    lines: tuple[str, ...]


class PipelineError(InvalidSpec):
    """A pipeline file that cannot be run. Its text is the whole report."""

    def __init__(self, source: Source, findings: Iterable[Finding]) -> None:
        self.source = source
        self.findings = tuple(in_order(findings))
        problems = tuple(
            Problem(
                where=f"{source.path}:{f.place.line}:{f.place.column}",
                message=f.message,
                hint=f.hint,
                code=f.code,
            )
            for f in self.findings
            if f.severity == ERROR
        )
        super().__init__(report(source, self.findings), problems=problems)


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Those that keep a pipeline from running."""
    return [finding for finding in findings if finding.severity == ERROR]


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """By place, as a reader of the file meets them; the same thing said twice only once."""
    return sorted(dict.fromkeys(findings), key=lambda f: (f.place, f.code))


def report(source: Source, findings: Iterable[Finding]) -> str:
    """All findings with their source lines, and the sum."""
    shown = in_order(findings)
    blocks = [block(source, finding) for finding in shown]
    return "\n".join([*blocks, summary(source.path, shown)])


def block(source: Source, finding: Finding) -> str:
    """One finding: its head, the source line, and a caret under what is meant."""
    line, column, width = finding.place
    head = finding.head(source.path)
    if not 1 <= line <= len(source.lines):
        return f"{head}\n  {finding.hint}" if finding.hint else head
    text, start = _window(source.lines[line - 1], column - 1)
    number = str(line)
    room = max(1, min(width, len(text) - start, CARETS_MAX))
    # A tab is one character of the line and up to eight columns of a terminal: keep it a tab.
    gap = "".join("\t" if char == "\t" else " " for char in text[:start])
    carets = f"  {' ' * len(number)} | {gap}{'^' * room} {finding.hint}".rstrip()
    return f"{head}\n  {number} | {text}\n{carets}"


def _window(text: str, start: int) -> tuple[str, int]:
    """The part of a long line that shows `start`, and where `start` is in it."""
    text = "".join(char if char.isprintable() or char == "\t" else "?" for char in text)
    if len(text) <= LINE_CHARS_MAX:
        return text, start
    left = max(0, start - LINE_CHARS_MAX // 2)
    return text[left : left + LINE_CHARS_MAX], start - left


def summary(path: str, findings: Iterable[Finding]) -> str:
    """How many of which kind, as one line."""
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.severity] = counts.get(finding.severity, 0) + 1
    parts = [_count(counts, ERROR, "error"), _count(counts, WARNING, "warning")]
    parts.append(_count(counts, INFO, "note"))
    said = ", ".join(part for part in parts if part)
    return f"{said} in {path}" if said else f"{path}: ok"


def _count(counts: Mapping[str, int], key: str, word: str) -> str:
    number = counts.get(key, 0)
    return "" if not number else f"{number} {word}" + ("" if number == 1 else "s")
