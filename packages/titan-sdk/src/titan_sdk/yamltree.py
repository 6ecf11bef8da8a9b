"""YAML text → plain values that remember where they stood, read strictly.

Decides which YAML is taken: the strict core of it. Only `true` and `false` are booleans, there
are no sexagesimal numbers and no timestamps, a key written twice is an error, and what aliases
may expand to has a ceiling. Never knows what a pipeline is; `pipeline` reads the tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from titan_sdk.findings import ERROR, Finding, Place

FILE_BYTES_MAX: Final = 1024 * 1024
NODES_MAX: Final = 250_000
"""Nodes of a file with every alias written out."""
DEPTH_MAX: Final = 50

_DEEP: Final = f"nested more than {DEPTH_MAX} levels deep"
_TAG: Final = "tag:yaml.org,2002:"
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Base):  # type: ignore[misc]  # the C loader has no types
    """Resolves plain scalars to null, boolean, integer, number or merge key; the rest is text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _name, _pattern, _first in (
    ("null", r"(?:~|null|)\Z", ["~", "n", ""]),
    ("bool", r"(?:true|false)\Z", ["t", "f"]),
    # No octal, no hexadecimal, no underscores, no 1:30: those stay text, and what wants a
    # number says so.
    ("int", r"[-+]?(?:0|[1-9][0-9]*)\Z", list("-+0123456789")),
    ("float", r"[-+]?[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?\Z", list("-+0123456789")),
    ("merge", r"<<\Z", ["<"]),
):
    _StrictLoader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)


class Scalar:
    """A value without parts: text, whole number, number, boolean or nothing."""

    __slots__ = ("place", "text", "value")

    def __init__(self, value: str | float | bool | None, text: str, place: Place) -> None:  # noqa: FBT001 - it is data
        self.value = value
        self.text = text
        self.place = place


class Listing:
    """A sequence of nodes."""

    __slots__ = ("items", "place")

    def __init__(self, items: list[Node], place: Place) -> None:
        self.items = items
        self.place = place


class Mapping:
    """Keys with the place of each, and their nodes, in the order of the file."""

    __slots__ = ("entries", "keys", "place")

    def __init__(self, place: Place) -> None:
        self.entries: dict[str, Node] = {}
        self.keys: dict[str, Place] = {}
        self.place = place


Node = Scalar | Listing | Mapping


class UnreadableError(Exception):
    """The text is no YAML, or more than this reader takes: nothing further can be said."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def parse(text: str) -> tuple[Node | None, list[Finding]]:
    """The tree of `text` (None if it holds nothing), and what is wrong with its keys and tags.

    Raises:
        UnreadableError: there is no tree to speak of.
    """
    try:
        _refuse_depth(text)
        root = _StrictLoader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise UnreadableError(_syntax(text, error)) from error
    except yaml.YAMLError as error:
        raise UnreadableError(_odd_character(text, error)) from error
    builder = _Builder()
    return (None if root is None else builder.node(root, 0)), builder.findings


def _refuse_depth(text: str) -> None:
    """Refuse deep nesting before nodes are made of it: that recurses in C, without a limit."""
    loader = _StrictLoader(text)
    depth = 0
    while loader.check_event():
        event = loader.get_event()
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise UnreadableError(_too_much(_DEEP, _at(event)))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Builder:
    """Turns PyYAML's nodes into ours; aliases are written out, under a ceiling."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._nodes = 0

    def node(self, node: Any, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise UnreadableError(
                _too_much(f"more than {NODES_MAX:,} values once aliases are written out", _at(node))
            )
        if depth > DEPTH_MAX:
            raise UnreadableError(_too_much(_DEEP, _at(node)))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode):
            self._refuse_tag(node, "seq")
            return Listing([self.node(item, depth + 1) for item in node.value], _at(node))
        self._refuse_tag(node, "map")
        return self._mapping(node, depth)

    def _scalar(self, node: Any) -> Scalar:
        text: str = node.value
        place = _at(node)
        kind = node.tag.removeprefix(_TAG)
        if kind == "str":
            return Scalar(text, text, place)
        if kind == "null":
            return Scalar(None, text, place)
        if kind == "bool":
            return Scalar(text == "true", text, place)
        if kind == "int" and len(text) <= 40:  # a longer one is no number that anybody means
            return Scalar(int(text), text, place)
        if kind == "float":
            return Scalar(float(text), text, place)
        self._refuse_tag(node, "str")
        return Scalar(text, text, place)

    def _mapping(self, node: Any, depth: int) -> Mapping:
        mapping = Mapping(_at(node))
        merged: list[Any] = []
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                merged.append(value)
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._say("Y102", "a key must be a plain word", _at(key))
                continue
            name, place = key.value, _at(key)
            if name in mapping.keys:
                first = mapping.keys[name]
                self._say(
                    "Y101", f'key "{name}" is written twice', place, f"first in line {first.line}"
                )
                continue
            mapping.keys[name] = place
            mapping.entries[name] = self.node(value, depth + 1)
        for value in merged:
            self._merge(mapping, value, depth)
        return mapping

    def _merge(self, mapping: Mapping, value: Any, depth: int) -> None:
        """`<<: *defaults`: keys that the mapping does not have itself."""
        sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                self._say("Y102", "<< takes a mapping, or a list of mappings", _at(value))
                continue
            other = self.node(source, depth + 1)
            if isinstance(other, Mapping):
                for name, node in other.entries.items():
                    mapping.entries.setdefault(name, node)
                    mapping.keys.setdefault(name, other.keys[name])

    def _refuse_tag(self, node: Any, usual: str) -> None:
        if node.tag != _TAG + usual:
            tag = node.tag.replace(_TAG, "!!")
            self._say("Y102", f"tag {tag} has no meaning in a pipeline", _at(node))

    def _say(self, code: str, message: str, place: Place, hint: str = "") -> None:
        self.findings.append(Finding(ERROR, code, message, place, hint))


def walk(node: Node) -> Iterator[Scalar]:
    """Every scalar below `node`."""
    if isinstance(node, Scalar):
        yield node
        return
    for part in node.items if isinstance(node, Listing) else node.entries.values():
        yield from walk(part)


def _at(node: Any) -> Place:
    start, end = node.start_mark, node.end_mark
    width = end.column - start.column if end.line == start.line else 1
    return Place(start.line + 1, start.column + 1, max(1, width))


def _syntax(text: str, error: yaml.MarkedYAMLError) -> Finding:
    mark = error.problem_mark or error.context_mark
    place = Place(1, 1) if mark is None else Place(mark.line + 1, mark.column + 1)
    message = " ".join(str(part) for part in (error.context, error.problem) if part)
    lines = text.splitlines()
    # libyaml says only that some character cannot start a token.
    if mark is not None and mark.line < len(lines) and lines[mark.line][mark.column :][:1] == "\t":
        return Finding(ERROR, "Y100", f"not YAML: {message}", place, "indent with spaces")
    return Finding(ERROR, "Y100", f"not YAML: {message}", place)


def _odd_character(text: str, error: yaml.YAMLError) -> Finding:
    position = getattr(error, "position", 0)
    before = text[:position]
    line = before.count("\n") + 1
    column = position - (before.rfind("\n") + 1) + 1
    code = ord(text[position]) if position < len(text) else 0
    message = f"not YAML: character U+{code:04X} is not allowed in it"
    return Finding(ERROR, "Y100", message, Place(line, column))


def _too_much(what: str, place: Place) -> Finding:
    return Finding(ERROR, "Y100", f"this file is {what}; Titan reads no such YAML", place)
