"""The parameters of a pipeline: what each takes, and the values that a submission has for all of them.

Decides what a value must look like and what stands for one that was not given. A value is a text, and is
known when the run is submitted: whatever is done with the run later, it keeps them. Called by `pipeline`,
which reads the definitions, and by `client`; where a value is used is decided by `matrix.substituted`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from titan_proto.errors import InvalidSpec, Problem
from titan_proto.limits import OUTPUT_VALUE_BYTES, PARAMS_PER_RUN
from titan_proto.outputs import KEY_RULE, OPENING, is_key
from titan_sdk.keys import BadValue, Keys, flag, nearest, quoted, read_fields, scalar, text

TODAY: Final = "today"
"""As the value of a date: the day of the submission, in UTC."""

_INTEGER = re.compile(r"-?\d{1,18}\Z", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,18})?\Z", re.ASCII)


class Param(NamedTuple):
    """One parameter, as the pipeline defines it."""

    type: str = "text"
    default: str | None = None
    """None: it has to be given."""
    choices: tuple[str, ...] = ()
    description: str = ""


def _is_date(value: str) -> bool:
    try:
        return len(value) == 10 and bool(datetime.date.fromisoformat(value))
    except ValueError:
        return False


TYPES: Final[dict[str, tuple[Callable[[str], bool], str]]] = {
    "text": (lambda value: "\0" not in value, "any text"),
    "integer": (lambda value: bool(_INTEGER.match(value)), "such as 12"),
    "number": (lambda value: bool(_NUMBER.match(value)), "such as 0.5"),
    "boolean": (lambda value: value in ("true", "false"), "true or false"),
    "date": (_is_date, "such as 2026-11-26"),
}
"""What a parameter can be: whether a text is one, and an example."""

SAMPLES: Final = {
    "text": "x",
    "integer": "1",
    "number": "1",
    "boolean": "true",
    "date": "2026-11-26",
}
"""A value of each type, for a check before there is one."""


def fault(param: Param, value: str) -> tuple[str, str]:
    """Why it cannot have this value (message, hint); empty texts if it can."""
    is_one, example = TYPES[param.type]
    if not is_one(value):
        return f"{quoted(value)} is no {param.type}", example
    if param.choices and value not in param.choices:
        meant = nearest(value, param.choices)
        hint = f'did you mean "{meant}"?' if meant else f"one of {', '.join(param.choices)}"
        return f"{quoted(value)} is none of its choices", hint
    if OPENING in value:
        return f"{quoted(value)} has {OPENING} in it", "it would be read as an expression"
    size = len(value.encode("utf-8", "replace"))
    if size > OUTPUT_VALUE_BYTES:
        return f"a value of {size:,} bytes", f"at most OUTPUT_VALUE_BYTES ({OUTPUT_VALUE_BYTES:,})"
    return "", ""


# -- definitions ----------------------------------------------------------------------------------
def definition(value: object) -> Param:
    """A default, or the whole: type, default, choices, required, description."""
    if not isinstance(value, Mapping):
        return Param(default=scalar(value))
    read = read_fields("a param", value, PARAM_KEYS)
    required = read.pop("required", None)
    param = Param(**read)
    if required and param.default is not None:
        message = "required, and it has a default"
        raise BadValue(message, "without a default it has to be given", ("required",))
    if required is False and param.default is None:
        param = param._replace(default="")
        if param.type != "text" or param.choices:
            hint = f"a default: what the {param.type} is where none is given"
            raise BadValue("it need not be given, and has no default", hint, ("required",))
    for index, choice in enumerate(param.choices):
        message, hint = fault(param._replace(choices=()), choice)
        if message:
            raise BadValue(message, hint, ("choices", index))
    if param.default is not None and (param.type, param.default) != ("date", TODAY):
        message, hint = fault(param, param.default)
        if message:
            raise BadValue(message, hint, ("default",) if "default" in value else ())
    return param


def _type(value: object) -> str:
    name = _SAME.get(value, value) if isinstance(value, str) else value
    if name in TYPES:
        return str(name)
    meant = nearest(str(value), TYPES)
    hint = f'did you mean "{meant}"?' if meant else f"one of {', '.join(TYPES)}"
    raise BadValue(f"{quoted(value)} is no type of a param", hint)


_SAME: Final = {
    "string": "text",
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
}


def _choices(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise BadValue(f"expected a list of values, not {quoted(value)}", "choices: [dev, prod]")
    found: list[str] = []
    for index, one in enumerate(value):
        try:
            found.append(scalar(one))
        except BadValue as error:
            error.at = (index,)
            raise
    return tuple(found)


PARAM_KEYS: Final[Keys] = {
    "type": ("type", _type),
    "default": ("default", scalar),
    "choices": ("choices", _choices),
    "required": ("required", flag),
    "description": ("description", text),
}
"""The keys of a param's long form, and the fields that they become."""


def param_name(name: object) -> str:
    """What a parameter may be called."""
    if not isinstance(name, str) or not is_key(name):
        raise BadValue(f"{quoted(name)} cannot be a param", KEY_RULE)
    return name


# -- values ---------------------------------------------------------------------------------------
def defaults_of(params: Mapping[str, Param]) -> dict[str, str]:
    """The values of those that need not be given."""
    return {
        name: _today() if (param.type, param.default) == ("date", TODAY) else param.default
        for name, param in params.items()
        if param.default is not None
    }


def bound(params: Mapping[str, Param], given: Mapping[str, object]) -> dict[str, str]:
    """What was given, with the defaults of what was not; nothing is asked about what is missing.

    Raises:
        InvalidSpec: one that the pipeline has not, or that cannot have this value; all of them at once.
    """
    values: dict[str, str] = {}
    found: list[Problem] = []
    for name, value in given.items():
        param = params.get(name)
        if param is None:
            meant = nearest(name, params)
            known = f"it has {', '.join(params)}" if params else "it has no params"
            hint = f'did you mean "{meant}"?' if meant else known
            message = f"-p {name}: this pipeline has no such param"
            found.append(Problem(where=f"params.{name}", message=message, hint=hint, code="Y226"))
            continue
        try:
            read = scalar(value)
        except BadValue as error:
            wrong, hint = error.message, error.hint
        else:
            read = _today() if (param.type, read) == ("date", TODAY) else read
            wrong, hint = fault(param, read)
        if wrong:
            message = f"-p {name}: {wrong}"
            found.append(Problem(where=f"params.{name}", message=message, hint=hint, code="Y226"))
        else:
            values[name] = read
    if found:
        lines = [one.message + (f" ({one.hint})" if one.hint else "") for one in found]
        raise InvalidSpec("; ".join(lines), problems=tuple(found))
    every = {**defaults_of(params), **values}
    return {name: every[name] for name in params if name in every}


def plain(given: Mapping[str, object]) -> dict[str, str]:
    """Values of a program, which defines none.

    Raises:
        InvalidSpec: one that cannot be called so, or is no text, number or boolean.
    """
    values: dict[str, str] = {}
    if len(given) > PARAMS_PER_RUN:
        raise InvalidSpec(f"{len(given)} params are more than PARAMS_PER_RUN ({PARAMS_PER_RUN})")
    for name, value in given.items():
        try:
            values[param_name(name)] = read = scalar(value)
            message, hint = fault(Param(), read)
            if message:
                raise BadValue(message, hint)
        except BadValue as error:
            raise InvalidSpec(f"params: {name}: {error.message} ({error.hint})") from error
    return values


def _today() -> str:
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()
