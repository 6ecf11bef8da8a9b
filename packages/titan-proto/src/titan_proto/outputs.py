"""Small values between jobs: what a key is, and how a job's definition names another job's output.

An expression stands in ``args``, ``command``, ``run`` or a value of ``env`` and has exactly one form,
``${{ jobs.A.outputs.key }}``. Here is what it looks like; that A must come before the job is checked by
``validation``, and the master alone puts values in its place. Pure, and read from both ends of a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from titan_proto.limits import (
    JOB_ID_CHARS,
    OUTPUT_KEY_CHARS,
    OUTPUT_VALUE_BYTES,
    OUTPUTS_BYTES,
    OUTPUTS_PER_JOB,
)
from titan_proto.specs import Launch

OPENING: Final = "${{"
"""What an expression begins with: a text without it has none."""
KEY_RULE: Final = (
    "letters, digits and '_'; does not start with a digit; at most "
    f"{OUTPUT_KEY_CHARS} characters (OUTPUT_KEY_CHARS)"
)
FORM: Final = "${{ jobs.JOB.outputs.KEY }}, ${{ params.NAME }} or ${{ matrix.KEY }}"

_KEY_PATTERN: Final = rf"[A-Za-z_][A-Za-z0-9_]{{0,{OUTPUT_KEY_CHARS - 1}}}"
_KEY = re.compile(rf"{_KEY_PATTERN}\Z")
# A key has no dot, so the last `.outputs.` ends the job's id, whatever that one holds.
EXPRESSION: Final = re.compile(
    rf"\$\{{\{{[ \t]*jobs\.(?P<job>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{JOB_ID_CHARS - 1}}})"
    rf"\.outputs\.(?P<key>{_KEY_PATTERN})[ \t]*\}}\}}"
)
EXPRESSION_OF: Final = {
    source: re.compile(rf"\$\{{\{{[ \t]*{source}\.(?P<key>{_KEY_PATTERN})[ \t]*\}}\}}")
    for source in ("matrix", "params")
}
"""Those whose values are known when a run is submitted: whoever submits it puts them in their place."""
KNOWN_AT_SUBMISSION: Final = re.compile(
    "|".join(f"(?:{one.pattern.replace('(?P<key>', '(?:')})" for one in EXPRESSION_OF.values())
)
_BLANKS = re.compile(r"\$\{\{[ \t]*([A-Za-z0-9_.-]{1,300})[ \t]*\}\}")
_SHOWN_CHARS: Final = 80


class Use(NamedTuple):
    """One expression in a job's definition."""

    field: str
    """Of the launch: ``args[2]``, ``env.DAY``, ``shell``, ``command[0]``."""
    text: str
    """The expression as it was written."""
    job: str
    """Whose output; empty where it is not of the one form that there is."""
    key: str


def is_key(text: str) -> bool:
    """Whether an output may be called so."""
    return _KEY.match(text) is not None


def size_of(outputs: Mapping[str, str]) -> int:
    """How many bytes the keys and values take, together."""
    return sum(len(key) + len(value.encode("utf-8", "replace")) for key, value in outputs.items())


def complaint(outputs: Mapping[str, str]) -> str:
    """Why these cannot be a job's outputs, in words; empty where they can."""
    if len(outputs) > OUTPUTS_PER_JOB:
        return f"it has {len(outputs)} keys, more than OUTPUTS_PER_JOB ({OUTPUTS_PER_JOB})"
    for key, value in outputs.items():
        if not is_key(key):
            return f"{key[:_SHOWN_CHARS]!r} cannot be a key: {KEY_RULE}"
        if "\0" in value:
            return f"the value of {key} holds a NUL character"
        size = len(value.encode("utf-8", "replace"))
        if size > OUTPUT_VALUE_BYTES:
            return (
                f"the value of {key} has {size} bytes, more than OUTPUT_VALUE_BYTES "
                f"({OUTPUT_VALUE_BYTES})"
            )
    if (size := size_of(outputs)) > OUTPUTS_BYTES:
        return f"keys and values have {size} bytes, more than OUTPUTS_BYTES ({OUTPUTS_BYTES})"
    return ""


def is_used(launch: Launch) -> bool:
    """Whether any text of the launch may hold an expression; for most jobs none does."""
    return (
        OPENING in launch.shell
        or any(OPENING in text for text in launch.args)
        or any(OPENING in text for text in launch.command)
        or any(OPENING in text for text in launch.env.values())
    )


def uses(launch: Launch) -> Iterator[Use]:
    """Every expression of a launch, those of a wrong form too, in the order of its fields."""
    for field, text in _texts(launch):
        at = text.find(OPENING)
        while at >= 0:
            match = EXPRESSION.match(text, at)
            if match is None:
                end = text.find("}}", at)
                shown = text[at : end + 2 if end >= 0 else len(text)]
                yield Use(field, shown[:_SHOWN_CHARS], "", "")
                at = text.find(OPENING, at + len(OPENING))
            else:
                yield Use(field, match.group(), match["job"], match["key"])
                at = text.find(OPENING, match.end())


def tightened(text: str) -> str:
    """The same text with no blanks inside its expressions, so that splitting leaves them whole."""
    return _BLANKS.sub(lambda match: f"${{{{{match[1]}}}}}", text)


def _texts(launch: Launch) -> Iterator[tuple[str, str]]:
    yield "shell", launch.shell
    for number, text in enumerate(launch.command):
        yield f"command[{number}]", text
    for number, text in enumerate(launch.args):
        yield f"args[{number}]", text
    for name, text in launch.env.items():
        yield f"env.{name}", text
