"""Write docs/protocol/messages.md and schema.json from the messages themselves.

    python tools/gen_docs.py            write both; refuses a schema that old peers could not read
    python tools/gen_docs.py --check    say whether they are fresh; write nothing

Decides how a message is described and which changes of a schema are additive. It decides nothing
about the wire: that is titan_proto's. Called by hand after a message was added, and by titan-proto's
tests.
"""

from __future__ import annotations

import ast
import enum
import inspect
import json
import pathlib
import sys
import types
import typing

import msgspec

from titan_proto.frame import VERSION_1
from titan_proto.messages import REGISTRY, HotMessage, Message, Request
from titan_proto.opcodes import BULK, HANDSHAKE

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "docs" / "protocol"

# -- what there is ----------------------------------------------------------------------------------


def type_name(kind: typing.Any) -> str:
    """A field's type, the same on every Python."""
    if kind is type(None):
        return "null"
    if kind is Ellipsis:
        return "..."
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in {typing.Union, types.UnionType}:
        return " | ".join(type_name(each) for each in arguments)
    if origin is not None:
        return f"{origin.__name__}[{', '.join(type_name(each) for each in arguments)}]"
    return str(kind.__name__)


def parts_of(kind: typing.Any) -> list[type]:
    """The structs and enums that a field's type is made of."""
    arguments = typing.get_args(kind)
    if arguments:
        return [part for each in arguments for part in parts_of(each)]
    if isinstance(kind, type) and issubclass(kind, (msgspec.Struct, enum.Enum)):
        return [kind]
    return []


def reply_of(kind: type) -> str:
    """The reply of a request; empty for what asks nothing."""
    if not issubclass(kind, Request):
        return ""
    (base,) = kind.__orig_bases__  # type: ignore[attr-defined]  # set by the class statement
    return type_name(typing.get_args(base)[0])


def nested_kinds() -> tuple[dict[str, type], dict[str, type[enum.Enum]]]:
    """Every struct and every enum that a message holds, at any depth."""
    structs: dict[str, type] = {}
    enums: dict[str, type[enum.Enum]] = {}
    todo: list[type] = list(REGISTRY.values())
    while todo:
        for field in msgspec.structs.fields(todo.pop()):
            for part in parts_of(field.type):
                if issubclass(part, enum.Enum):
                    enums[part.__name__] = part
                elif part.__name__ not in structs:
                    structs[part.__name__] = part
                    todo.append(part)
    return dict(sorted(structs.items())), dict(sorted(enums.items()))


def default_of(field: msgspec.structs.FieldInfo) -> typing.Any:
    """What an absent field means, as JSON."""
    factory = field.default_factory
    default = field.default if factory is msgspec.NODEFAULT else factory()
    return json.loads(msgspec.json.encode(default))


def describe(kind: type) -> dict[str, typing.Any]:
    """A struct as the schema has it."""
    fields = []
    for field in msgspec.structs.fields(kind):
        described = {"name": field.name, "type": type_name(field.type), "required": field.required}
        if not field.required:
            described["default"] = default_of(field)
        fields.append(described)
    is_array = kind.__struct_config__.array_like  # type: ignore[attr-defined]
    return {
        "encoding": "array" if is_array else "map",
        "fields": fields,
        "reserved": sorted(getattr(kind, "RESERVED", ())),
    }


def make_schema() -> dict[str, typing.Any]:
    """Everything that peers must agree on, in a form that can be compared."""
    structs, enums = nested_kinds()
    return {
        "protocol": VERSION_1,
        "messages": {
            kind.__name__: {
                "opcode": int(opcode),
                "reply": reply_of(kind),
                **describe(kind),
            }
            for opcode, kind in sorted(REGISTRY.items())
        },
        "structs": {name: describe(kind) for name, kind in structs.items()},
        "enums": {name: [str(member) for member in kind] for name, kind in enums.items()},
    }


# -- which changes are additive -----------------------------------------------------------------------


def complaints(old: dict[str, typing.Any], new: dict[str, typing.Any]) -> list[str]:
    """What of `new` a peer that knows only `old` could not live with, or the other way round."""
    found = []
    for section in ("messages", "structs"):
        for name, before in old[section].items():
            after = new[section].get(name)
            if after is None:
                found.append(f"{name} is gone")
            else:
                found += _struct_complaints(name, before, after)
    for name, before in old["enums"].items():
        after = new["enums"].get(name, [])
        found += [f"{name}.{value} is gone" for value in before if value not in after]
    old_names = {message["opcode"]: name for name, message in old["messages"].items()}
    for name, message in new["messages"].items():
        owner = old_names.get(message["opcode"], name)
        if owner != name:
            found.append(f"{name} takes opcode 0x{message['opcode']:02x}, which is {owner}'s")
    return found


def _struct_complaints(
    name: str, before: dict[str, typing.Any], after: dict[str, typing.Any]
) -> list[str]:
    found = [
        f"{name}: {what} was {before[what]!r}, is {after[what]!r}"
        for what in ("opcode", "reply", "encoding")
        if before.get(what) != after.get(what)
    ]
    old = {field["name"]: field for field in before["fields"]}
    new = {field["name"]: field for field in after["fields"]}
    for field, was in old.items():
        is_now = new.get(field)
        if is_now is None:
            if was["required"]:
                found.append(f"{name}.{field} is required for ever, and is gone")
            elif field not in after["reserved"]:
                found.append(f"{name}.{field} is gone and its name not in RESERVED")
            continue
        found += [
            f"{name}.{field}: {what} was {was.get(what)!r}, is {is_now.get(what)!r}"
            for what in ("type", "required", "default")
            if was.get(what) != is_now.get(what)
        ]
    for field, is_now in new.items():
        if field not in old and is_now["required"]:
            found.append(f"{name}.{field} is new and has no default")
        if field not in old and field in before["reserved"]:
            found.append(f"{name}.{field} has a retired name")
    if before["encoding"] == "array" and list(old) != list(new)[: len(old)]:
        found.append(f"{name} is an array: its fields may be appended to, nothing else")
    found += [
        f"{name}: {field} is no longer in RESERVED"
        for field in before["reserved"]
        if field not in after["reserved"]
    ]
    return found


# -- as text ------------------------------------------------------------------------------------------


def field_notes(kind: type) -> dict[str, str]:
    """What stands below a field, or an enum's member, as a string of its own."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    notes = {}
    for statement, below in zip(tree.body, tree.body[1:], strict=False):
        target = getattr(statement, "target", None) or next(
            iter(getattr(statement, "targets", ())), None
        )
        text = below.value if isinstance(below, ast.Expr) else None
        if isinstance(target, ast.Name) and isinstance(text, ast.Constant):
            notes[target.id] = " ".join(str(text.value).split())
    return notes


def first_words(kind: type | types.ModuleType) -> str:
    """A docstring as one paragraph per paragraph."""
    paragraphs = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def field_table(kind: type) -> list[str]:
    """The fields of a struct, as a table."""
    fields = msgspec.structs.fields(kind)
    if not fields:
        return ["No fields.", ""]
    notes = field_notes(kind)
    lines = ["| Field | Type | Absent means | |", "|---|---|---|---|"]
    for field in fields:
        absent = (
            "required"
            if field.required
            else f"`{json.dumps(default_of(field), ensure_ascii=False)}`"
        )
        kind_name = type_name(field.type).replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{kind_name}` | {absent} | {notes.get(field.name, '')} |")
    return [*lines, ""]


def message_section(kind: type[Message | HotMessage]) -> list[str]:
    """One message."""
    facts = [f"`0x{int(kind.OPCODE):02X}`"]
    if kind.OPCODE in BULK:
        facts.append("bulk lane")
    if kind.OPCODE in HANDSHAKE:
        facts.append("handshake only")
    if issubclass(kind, HotMessage):
        facts.append("array")
    if reply_of(kind):
        facts.append(f"answered by `{reply_of(kind)}`")
    return [
        f"### {kind.__name__}",
        "",
        " · ".join(facts),
        "",
        first_words(kind),
        "",
        *field_table(kind),
    ]


def make_markdown() -> str:
    """The whole of messages.md."""
    lines = [
        "# Messages",
        "",
        "Made by `tools/gen_docs.py` from the structs in `titan_proto.messages`; do not edit. How they",
        "travel is said in [wire.md](wire.md). The third column says what an absent field means.",
        "",
    ]
    block = ""
    for _, kind in sorted(REGISTRY.items()):
        module = sys.modules[kind.__module__]
        if module.__name__ != block:
            block = module.__name__
            lines += [f"## {block.rpartition('.')[2].capitalize()}", "", first_words(module), ""]
        lines += message_section(kind)
    structs, enums = nested_kinds()
    lines += ["## Parts of messages", ""]
    for name, kind in structs.items():
        lines += [f"### {name}", ""]
        if kind.__struct_config__.array_like:
            lines += ["array", ""]
        lines += [first_words(kind), "", *field_table(kind)]
    lines += [
        "## Enumerations",
        "",
        "All of them are open: a value that a reader does not know reads as `UNKNOWN`, which nobody sends.",
        "",
    ]
    for name, values in enums.items():
        notes = field_notes(values)
        lines += [f"### {name}", "", first_words(values), ""]
        lines += [f"* `{value}` {notes.get(value.name, '')}".rstrip() for value in values]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def make_files() -> dict[str, str]:
    """The files by name."""
    return {
        "messages.md": make_markdown(),
        "schema.json": json.dumps(make_schema(), indent=1, ensure_ascii=False) + "\n",
    }


def main(arguments: list[str]) -> int:
    """Write or check; 1 if stale, or if the schema changed in a way that is not additive."""
    files = make_files()
    stale = [
        name
        for name, text in files.items()
        if not (FOLDER / name).exists() or (FOLDER / name).read_text(encoding="utf-8") != text
    ]
    if "--check" in arguments:
        for name in stale:
            print(f"{FOLDER / name} is stale: run python tools/gen_docs.py")
        return 1 if stale else 0
    schema = FOLDER / "schema.json"
    if schema.exists():
        found = complaints(json.loads(schema.read_text(encoding="utf-8")), make_schema())
        for line in found:
            print(f"not additive: {line}")
        if found:
            return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (FOLDER / name).write_text(files[name], encoding="utf-8")
        print(f"wrote {FOLDER / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
