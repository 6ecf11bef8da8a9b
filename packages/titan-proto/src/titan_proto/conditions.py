"""Conditions: the small language of ``when``, read and decided without ever executing anything.

Comparisons of values with ``and``, ``or``, ``not``, ``in`` and parentheses. A value is a literal, or one
of ``jobs.ID.outputs.KEY``, ``jobs.ID.state``, ``params.NAME`` and ``matrix.KEY``. Here is what that looks
like and what comes of it; whether what is read exists is asked by ``validation``, and what it is by
whoever decides: the master's core. Pure, bounded in length and depth, and read from both ends of a link.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from titan_proto.limits import JOB_ID_CHARS, OUTPUT_KEY_CHARS, WHEN_CHARS, WHEN_DEPTH
from titan_proto.states import JobState

FORM: Final = "such as jobs.A.outputs.rows > 0 and jobs.B.state == 'SUCCEEDED'"
SOURCES: Final = "jobs.ID.outputs.KEY, jobs.ID.state, params.NAME, matrix.KEY"

_KEY: Final = rf"[A-Za-z_][A-Za-z0-9_]{{0,{OUTPUT_KEY_CHARS - 1}}}"
_ID: Final = rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{JOB_ID_CHARS - 1}}}"
_TOKEN = re.compile(
    rf"""(?P<blank>[ \t\r\n]+)
    |(?P<output>jobs\.(?P<job>{_ID})\.outputs\.(?P<key>{_KEY})(?![\w.-]))
    |(?P<state>jobs\.(?P<whose>{_ID})\.state(?![\w.-]))
    |(?P<param>params\.(?P<name>{_KEY})(?![\w.-]))
    |(?P<cell>matrix\.(?P<axis>{_KEY})(?![\w.-]))
    |(?P<number>-?[0-9]{{1,18}}(?:\.[0-9]{{1,18}})?(?![\w.]))
    |(?P<text>'[^']*'|"[^"]*")
    |(?P<op>==|!=|<=|>=|<|>|\(|\)|\[|\]|,)
    |(?P<word>[A-Za-z_][\w.-]*)""",
    re.VERBOSE | re.ASCII,
)
_NUMBER = re.compile(r"[ \t]*([+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?)[ \t]*\Z", re.ASCII)
_COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=")
_STATES: Final = tuple(state.value for state in JobState if state is not JobState.UNKNOWN)
_SHOWN_CHARS: Final = 60

Value = str | int | float | bool
Item = Value | tuple[Value, ...]


class Name(NamedTuple):
    """What a condition reads."""

    source: str
    """``output``, ``state``, ``param`` or ``cell``."""
    job: str
    """Whose; of a parameter and a cell empty."""
    key: str
    """Of an output, a parameter or a cell."""
    at: int
    """Where it stands: characters before it."""

    def __str__(self) -> str:
        if self.source == "output":
            return f"jobs.{self.job}.outputs.{self.key}"
        if self.source == "state":
            return f"jobs.{self.job}.state"
        return f"{'params' if self.source == 'param' else 'matrix'}.{self.key}"


class Literal(NamedTuple):
    """What stands there as it is."""

    value: Item
    at: int


class Node(NamedTuple):
    """``and`` and ``or`` of several, ``not`` of one, a comparison of two."""

    op: str
    parts: tuple[Node | Name | Literal, ...]
    at: int


Tree = Node | Name | Literal


class BadCondition(Exception):
    """The text is no condition: what is wrong with it, where, and what would be right."""

    def __init__(self, message: str, at: int, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.at = at
        """Characters before the place."""
        self.hint = hint


class Undecidable(Exception):
    """What it reads is not there, or cannot be compared so; the text says why, for people."""


# -- reading --------------------------------------------------------------------------------------
@lru_cache(maxsize=512)  # the cells of a matrix have one condition
def parse(text: str) -> Tree:
    """The condition that a text is. Raises BadCondition."""
    if len(text) > WHEN_CHARS:
        raise BadCondition(
            f"a condition of {len(text)} characters is more than WHEN_CHARS ({WHEN_CHARS})", 0
        )
    if "${{" in text:
        raise BadCondition(
            "a condition is written without ${{ }}", text.index("${{"), f"{FORM}; see {SOURCES}"
        )
    reader = _Reader(text)
    tree = reader.whole()
    return _as_condition(tree)


def names(tree: Tree) -> Iterator[Name]:
    """All that it may read, in its order."""
    todo: list[Tree] = [tree]
    while todo:
        part = todo.pop()
        if isinstance(part, Name):
            yield part
        elif isinstance(part, Node):
            todo.extend(reversed(part.parts))


class _Token(NamedTuple):
    kind: str
    text: str
    at: int
    read: Name | Literal | None = None


class _Reader:
    """One pass over the text, from left to right; as deep as WHEN_DEPTH and no deeper."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def whole(self) -> Tree:
        tree = self._either()
        token = self._peek()
        if token.kind != "end":
            raise BadCondition(
                f"{_shown(token.text)} does not go on from what stands before it",
                token.at,
                "and, or, or a comparison",
            )
        return tree

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _took(self, kind: str, *texts: str) -> _Token | None:
        token = self._peek()
        if token.kind == kind and token.text in texts:
            return self._take()
        return None

    def _either(self) -> Tree:
        return self._chain("or", self._both)

    def _both(self) -> Tree:
        return self._chain("and", self._not)

    def _chain(self, word: str, part: Callable[[], Tree]) -> Tree:
        first = part()
        parts: list[Tree] = []
        at = self._peek().at
        while self._took("word", word):
            parts.append(_as_condition(part()))
        return Node(word, (_as_condition(first), *parts), at) if parts else first

    def _not(self) -> Tree:
        token = self._took("word", "not")
        if token is None:
            return self._comparison()
        self._deeper(token.at)
        inner = _as_condition(self._not())
        self._depth -= 1
        return Node("not", (inner,), token.at)

    def _comparison(self) -> Tree:
        left = self._value()
        token = self._peek()
        op = ""
        if token.kind == "op" and token.text in _COMPARISONS:
            op = self._take().text
        elif self._took("word", "in"):
            op = "in"
        elif self._took("word", "not"):
            if self._took("word", "in") is None:
                raise BadCondition("not stands between two values", token.at, "not in")
            op = "not in"
        if not op:
            return left
        right = self._value()
        after = self._peek()
        if (after.kind == "op" and after.text in _COMPARISONS) or (
            after.kind == "word" and after.text == "in"
        ):
            raise BadCondition(
                "two comparisons in a row", after.at, "put and between them: a < b and b < c"
            )
        return _compared(op, left, right, token.at)

    def _value(self) -> Tree:
        token = self._take()
        if token.read is not None:
            return token.read
        if token.kind == "op" and token.text == "(":
            self._deeper(token.at)
            inner = self._either()
            self._depth -= 1
            if self._took("op", ")") is None:
                raise BadCondition("this parenthesis is not closed", token.at)
            return inner
        if token.kind == "op" and token.text == "[":
            return Literal(self._list(token), token.at)
        if token.kind == "end":
            raise BadCondition("a value is missing here", token.at, FORM)
        hint = f"a value: {SOURCES}, a number, or a text in quotes"
        if token.kind == "word":
            hint = _meant(token.text) or hint
        raise BadCondition(f"{_shown(token.text)} is no value", token.at, hint)

    def _list(self, opening: _Token) -> tuple[Value, ...]:
        items: list[Value] = []
        while self._took("op", "]") is None:
            token = self._take()
            if not isinstance(token.read, Literal) or isinstance(token.read.value, tuple):
                if token.kind == "end":
                    raise BadCondition("this list is not closed", opening.at)
                raise BadCondition(
                    f"{_shown(token.text)} cannot stand in a list",
                    token.at,
                    "numbers, texts in quotes, true and false",
                )
            items.append(token.read.value)
            after = self._peek()
            if self._took("op", ",") is None and after.kind != "end" and after.text != "]":
                raise BadCondition("a comma is missing in this list", after.at)
        return tuple(items)

    def _deeper(self, at: int) -> None:
        self._depth += 1
        if self._depth > WHEN_DEPTH:
            raise BadCondition(f"nested deeper than WHEN_DEPTH ({WHEN_DEPTH})", at)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            char = text[at]
            if char in "'\"":
                raise BadCondition("this text is not closed", at)
            hint = {"=": "== compares", "&": "and", "|": "or", "!": "not"}.get(char, "")
            raise BadCondition(f"{_shown(char)} means nothing in a condition", at, hint)
        if match.lastgroup != "blank":
            yield _token(match, at)
        at = match.end()
    yield _Token("end", "the end", at)


def _token(match: re.Match[str], at: int) -> _Token:
    found = match.group()
    read: Name | Literal | None = None
    if match["output"]:
        read = Name("output", match["job"], match["key"], at)
    elif match["state"]:
        read = Name("state", match["whose"], "", at)
    elif match["param"]:
        read = Name("param", "", match["name"], at)
    elif match["cell"]:
        read = Name("cell", "", match["axis"], at)
    elif match["number"]:
        read = Literal(float(found) if "." in found else int(found), at)
    elif match["text"]:
        read = Literal(found[1:-1], at)
    elif match["word"] and found in ("true", "false"):
        read = Literal(found == "true", at)
    kind = "op" if match["op"] else "word" if match["word"] else "value"
    return _Token(kind, found, at, read)


def _as_condition(tree: Tree) -> Tree:
    """Something that can be true or false. Raises BadCondition."""
    if isinstance(tree, Literal) and not isinstance(tree.value, bool):
        raise BadCondition("this is a value, and no condition", tree.at, f"compare it: {FORM}")
    if isinstance(tree, Name) and tree.source == "state":
        hint = f"{tree} == 'SUCCEEDED'"
        raise BadCondition(f"{tree} is a value, and no condition", tree.at, f"compare it: {hint}")
    return tree


def _compared(op: str, left: Tree, right: Tree, at: int) -> Node:
    for side in (left, right):
        if isinstance(side, Node):
            raise BadCondition(
                "a comparison is compared here", side.at, "and, or and not go between comparisons"
            )
    is_list = isinstance(right, Literal) and isinstance(right.value, tuple)
    if isinstance(left, Literal) and isinstance(left.value, tuple):
        raise BadCondition("a list stands on the left", left.at, "a value in [one, two]")
    if is_list and op not in ("in", "not in"):
        raise BadCondition(f"a list is compared by {op}", right.at, "in, or not in")
    has_parts = not isinstance(right, Literal) or isinstance(right.value, (str, tuple))
    if op in ("in", "not in") and not has_parts:
        raise BadCondition("a number has nothing in it", right.at, "a list: [1, 2]")
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Name) and one.source == "state" and isinstance(other, Literal):
            _check_states(other)
    return Node(op, (left, right), at)


def _check_states(literal: Literal) -> None:
    """What the state of a job is compared with is one."""
    values = literal.value if isinstance(literal.value, tuple) else (literal.value,)
    for value in values:
        if value not in _STATES:
            near = difflib.get_close_matches(str(value).upper(), _STATES, n=1, cutoff=0.6)
            hint = f"'{near[0]}'?" if near else f"any of {', '.join(_STATES)}"
            raise BadCondition(f"{_shown(str(value))} is no state of a job", literal.at, hint)


def _meant(word: str) -> str:
    """A hint for a word that means nothing here."""
    lowered = word.lower()
    if lowered in ("and", "or", "not", "in"):
        return lowered if word != lowered else "a value is missing before it"
    if lowered in ("true", "false"):
        return f"{lowered}, or '{word}' for the text"
    head = word.partition(".")[0]
    if head in ("jobs", "params", "matrix"):
        return SOURCES
    return f"a text stands in quotes: '{word}'" if "." not in word else ""


def _shown(text: str) -> str:
    short = text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
    return '"' + "".join(c if c.isprintable() else "?" for c in short) + '"'


# -- deciding -------------------------------------------------------------------------------------
def holds(tree: Tree, read: Callable[[Name], str]) -> bool:
    """Whether it is true. What ``and`` and ``or`` need not look at is not read.

    Args:
        tree: as parsed.
        read: what a name stands for; raises Undecidable where that is not there.

    Raises:
        Undecidable: `read` says so, or a comparison has no meaning.
    """
    if isinstance(tree, Node):
        if tree.op == "and":
            return all(holds(part, read) for part in tree.parts)
        if tree.op == "or":
            return any(holds(part, read) for part in tree.parts)
        if tree.op == "not":
            return not holds(tree.parts[0], read)
        return _decided(tree, read)
    value = _of(tree, read)
    if value in ("true", "false"):
        return value == "true"
    if isinstance(value, bool):
        return value
    raise Undecidable(f"{tree} is {value!r}, which is neither true nor false: compare it")


def _of(tree: Tree, read: Callable[[Name], str]) -> Item:
    if isinstance(tree, Literal):
        return tree.value
    assert isinstance(tree, Name)  # _compared lets no comparison in
    return read(tree)


def _decided(node: Node, read: Callable[[Name], str]) -> bool:
    left, right = _of(node.parts[0], read), _of(node.parts[1], read)
    assert not isinstance(left, tuple)  # likewise
    if node.op in ("in", "not in"):
        if isinstance(right, tuple):
            found = any(_same(left, one) for one in right)
        else:
            found = _text(left) in _text(right)
        return found == (node.op == "in")
    assert not isinstance(right, tuple)
    if node.op in ("==", "!="):
        return _same(left, right) == (node.op == "==")
    return _ordered(node, left, right)


def _ordered(node: Node, left: Value, right: Value) -> bool:
    first, second = _number(left), _number(right)
    if first is not None and second is not None:
        less, equal = first < second, first == second
    elif isinstance(left, str) and isinstance(right, str):
        less, equal = left < right, left == right
    else:
        odd, side = (left, 0) if first is None else (right, 1)
        raise Undecidable(
            f"{_said(node.parts[side])} is {odd!r}, which is no number, and is compared by {node.op}"
        )
    return {"<": less, "<=": less or equal, ">": not (less or equal), ">=": not less}[node.op]


def _same(left: Value, right: Value) -> bool:
    """Texts by their characters; where one side is a number or a boolean, the other is read as one."""
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    if isinstance(left, bool) or isinstance(right, bool):
        return _text(left) == _text(right)
    first, second = _number(left), _number(right)
    return first is not None and first == second


def _number(value: Value) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        match = _NUMBER.match(value)
        if match is None:
            return None
        return float(match[1]) if "." in match[1] else int(match[1])
    return value


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _said(tree: Tree) -> str:
    return str(tree) if isinstance(tree, Name) else "what it is compared with"
