"""Files of KEY=VALUE lines → variables for jobs, with everything wrong in them found at once.

Decides what such a line may look like, and how much of it there may be. Never shows a value: such
files hold secrets. `staging` asks it, on the client's side and before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, final

from titan_sdk.keys import named
from titan_sdk.scripts import is_absent, what_instead

ENV_FILE_BYTES_MAX: Final = 1024 * 1024
ENV_FILES_MAX: Final = 20
"""Files that one `env_file` may name."""
WRONG_LINES_MAX: Final = 20
"""Bad lines of one file that are listed; one more says how many there are besides."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NAME_RULE: Final = "letters, digits, '_', '.' and '-', not first a digit, '.' or '-'"
_EXPORT = re.compile(r"export[ \t]+")
_COMMENT = re.compile(r"[ \t]+#")
_BLANK: Final = " \t"
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


class Wrong(NamedTuple):
    """What is wrong with a file, or with one place of it."""

    where: str
    """`file:line:column`, or the file alone; empty for what is wrong with no single file."""
    message: str
    hint: str = ""

    @property
    def text(self) -> str:
        """Both, as an error says it."""
        return f"{self.where}: {self.message}" if self.where else self.message


class _BadLineError(Exception):
    """A line that is no KEY=VALUE; `at` is the place in it, from 0."""

    def __init__(self, at: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.at = at
        self.message = message
        self.hint = hint


@final
class EnvFiles:
    """The files that one submission names, each read once and blamed once."""

    def __init__(self, folder: Path, *, shown_from: Path) -> None:
        self._folder = folder
        self._shown_from = shown_from
        self._read: dict[str, dict[str, str]] = {}

    def variables(self, names: Sequence[str]) -> tuple[dict[str, str], list[Wrong]]:
        """What the files set, later ones over earlier ones, and what is new of what is wrong."""
        if len(names) > ENV_FILES_MAX:
            message = f"{len(names)} files are more than ENV_FILES_MAX ({ENV_FILES_MAX})"
            return {}, [Wrong("", message)]
        merged: dict[str, str] = {}
        found: list[Wrong] = []
        for name in names:
            if name not in self._read:
                shown = _on_one_line(str(self._shown_from / name))
                self._read[name], wrong = _file(self._folder, name, shown)
                found += wrong
            merged |= self._read[name]
        return merged, found


def _file(folder: Path, name: str, shown: str) -> tuple[dict[str, str], list[Wrong]]:
    try:
        path = folder / Path(name).expanduser()
    except RuntimeError:  # `~name` of nobody
        path = folder / name
    if is_absent(path):
        return {}, [Wrong(shown, "there is no such file", f"seen from {_on_one_line(str(folder))}")]
    # Asked before it is opened: opening a FIFO would wait for whoever writes into it.
    what = what_instead(path)
    if what:
        return {}, [Wrong(shown, f"this is {what}, not a file")]
    try:
        with path.open("rb") as file:
            raw = file.read(ENV_FILE_BYTES_MAX + 1)
    except OSError as error:
        return {}, [Wrong(shown, f"cannot be read: {error.strerror}")]
    if len(raw) > ENV_FILE_BYTES_MAX:
        message = f"this file is larger than ENV_FILE_BYTES_MAX ({ENV_FILE_BYTES_MAX})"
        return {}, [Wrong(shown, message)]
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return {}, [Wrong(f"{shown}:{line}:1", "this line is not UTF-8 text")]
    values, wrong = parse(text)
    return values, [
        one._replace(where=f"{shown}:{one.where}" if one.where else shown) for one in wrong
    ]


def _on_one_line(path: str) -> str:
    """A path as an error says it: whole, its end says the most."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in path)


def parse(text: str) -> tuple[dict[str, str], list[Wrong]]:
    """The variables of a file's text, and its bad lines; `where` is `line:column`."""
    values: dict[str, str] = {}
    first: dict[str, int] = {}
    wrong: list[Wrong] = []
    more = 0
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            pair = _pair(line.removesuffix("\r"), first)
        except _BadLineError as error:
            if len(wrong) < WRONG_LINES_MAX:
                wrong.append(Wrong(f"{number}:{error.at + 1}", error.message, error.hint))
            else:
                more += 1
            continue
        if pair is not None:
            first[pair[0]] = number
            values[pair[0]] = pair[1]
    if more:
        wrong.append(Wrong("", f"and {more} more bad lines (WRONG_LINES_MAX: {WRONG_LINES_MAX})"))
    return values, wrong


def _pair(line: str, first: dict[str, int]) -> tuple[str, str] | None:
    """The variable of one line; None for a line without one."""
    start = len(line) - len(line.lstrip(_BLANK))
    if start == len(line) or line[start] == "#":
        return None
    export = _EXPORT.match(line, start)
    start = export.end() if export else start
    equals = line.find("=", start)
    if equals < 0:
        raise _BadLineError(start, "this line is no KEY=VALUE", "a comment begins with #")
    name = line[start:equals].rstrip(_BLANK)
    match = _NAME.match(name)
    if match is None or match.end() < len(name):
        at = start + (match.end() if match else 0)
        raise _BadLineError(at, "what stands before = cannot name a variable", _NAME_RULE)
    if name in first:
        raise _BadLineError(start, f"{named(name)} is set twice", f"first in line {first[name]}")
    value = _value(line, equals + 1)
    if "\0" in value:
        raise _BadLineError(line.index("\0"), f"the value of {named(name)} holds a NUL character")
    return name, value


def _value(line: str, start: int) -> str:
    """What stands from `start` on: quoted, or as it is up to a comment."""
    given = line[start:].lstrip(_BLANK)
    at = len(line) - len(given)
    if given[:1] not in {'"', "'"}:
        comment = _COMMENT.search(line, start)
        return line[start : comment.start() if comment else None].strip(_BLANK)
    value, end = _single(line, at) if given[0] == "'" else _double(line, at)
    rest = line[end:].lstrip(_BLANK)
    if rest and not _COMMENT.match(line, end):
        at = len(line) - len(rest)
        raise _BadLineError(at, "something follows the closing quote", "a comment begins with ' #'")
    return value


def _single(line: str, at: int) -> tuple[str, int]:
    end = line.find("'", at + 1)
    if end < 0:
        raise _open(at)
    return line[at + 1 : end], end + 1


def _double(line: str, at: int) -> tuple[str, int]:
    value: list[str] = []
    here = at + 1
    while here < len(line):
        char = line[here]
        if char == '"':
            return "".join(value), here + 1
        if char == "\\":
            escape = line[here + 1 : here + 2]
            if escape and escape not in _ESCAPES:
                hint = (
                    r"known are \n, \r, \t, \", \\ and \$; single quotes take everything as it is"
                )
                raise _BadLineError(here, "a backslash before what needs none", hint)
            char = _ESCAPES.get(escape, "")
            here += 1
        value.append(char)
        here += 1
    raise _open(at)


def _open(at: int) -> _BadLineError:
    hint = r'a value ends in its line; "\n" is a line break inside double quotes'
    return _BadLineError(at, "this quote is not closed", hint)
