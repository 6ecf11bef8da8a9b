"""The raw DAG string: one line of text → jobs, as `titan dag` takes it.

Decides the grammar, which docs/reference/dag-string.md writes down: the original's documented form,
with escapes, so that a `;` in an argument is an argument and never another job. Every error names its
column. Never reads files and never talks to a master; `TitanClient.submit_dag` calls it and writes the
contents that a string carries into files of its own.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final, NamedTuple

from titan_proto.errors import InvalidSpec, Problem
from titan_proto.limits import DAG_STRING_BYTES, PRIORITY_MAX
from titan_sdk.findings import ERROR, Finding, Place, Source, block
from titan_sdk.keys import DAG_PREFIX

GENERAL: Final = "GENERAL"
_RUN: Final = "RUN_PAYLOAD"
_DEPLOY: Final = "DEPLOY_PAYLOAD"
_ARCHIVES: Final = ("RUN_ARCHIVE", "START_ARCHIVE_SERVICE")
_BLANKS: Final = " \t\r\n"
_FLAGS: Final = ("AFFINITY", "STICKY")
_SHAPE: Final = "id | skill | RUN_PAYLOAD | file | content | priority | delay | [parents]"
_ESCAPED: Final = {"n": "\n", "t": "\t"}
_PAYLOADS: Final[dict[str, dict[int, tuple[str, ...]]]] = {
    _RUN: {
        1: ("file",),
        2: ("file", "content"),
        3: ("file", "args", "content"),
        4: ("file", "args", "content", "skill"),
    },
    _DEPLOY: {
        1: ("file",),
        2: ("file", "content"),
        3: ("file", "content", "port"),
        4: ("file", "content", "port", "skill"),
    },
}
"""What the fields between the header and the priority are, by how many there are."""


class DagJob(NamedTuple):
    """One job of a DAG string."""

    id: str
    file: str
    """Its script; empty where a handler does the work."""
    content: bytes | None
    """What the script says, where the string carries it."""
    args: str | tuple[str, ...]
    """Text is split as a shell splits it; a tuple is exact."""
    handler: str
    """What a worker registered, instead of a script."""
    skills: tuple[str, ...]
    is_service: bool
    port: str
    priority: int
    delay_ms: int
    parents: tuple[str, ...]
    affinity: bool


class DagStringError(InvalidSpec):
    """A DAG string that says nothing that could be run; its text shows the place."""

    def __init__(
        self, text: str, message: str, column: int, hint: str = "", width: int = 1
    ) -> None:
        source = Source("dag", (text,))
        finding = Finding(ERROR, "D100", message, Place(1, column, width), hint)
        problem = Problem(where=f"column {column}", message=message, hint=hint, code="D100")
        super().__init__(block(source, finding), problems=(problem,))
        self.column = column


class _Field(NamedTuple):
    text: str
    column: int
    raw: str
    """As it was written, escapes and all."""


class _Cut(NamedTuple):
    """Fields of one job, and whether each character of them was escaped."""

    fields: list[_Field]
    column: int


def parse(text: str) -> tuple[DagJob, ...]:
    """The jobs of a DAG string, in its order.

    Raises:
        DagStringError: with the column of the first thing that is wrong.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > DAG_STRING_BYTES:
        limit = (
            f"this DAG string has {size:,} bytes, more than DAG_STRING_BYTES ({DAG_STRING_BYTES:,})"
        )
        raise InvalidSpec(f"{limit}; a pipeline file may be larger:  titan run pipeline.yaml")
    jobs = [_job(text, cut) for cut in _jobs(text)]
    if not jobs:
        raise DagStringError(text, "there is no job in it", 1, f"say  {_SHAPE}")
    _check_parents(text, jobs)
    return tuple(job for job, _ in jobs)


def _jobs(text: str) -> list[_Cut]:
    """The string cut at `;` and each job at `|`; blanks round a field do not count."""
    found: list[_Cut] = []
    for start, part in _split(text, ";", 0):
        if part.strip(_BLANKS):
            fields = [_field(text, begin, piece) for begin, piece in _split(part, "|", start)]
            found.append(_Cut(fields, start + 1))
    return found


def _split(text: str, separator: str, offset: int) -> list[tuple[int, str]]:
    """Where each part begins, and the part as written; what stands behind a backslash splits nothing."""
    parts: list[tuple[int, str]] = []
    begin = place = 0
    while place < len(text):
        if text[place] == "\\":
            place += 2
            continue
        if text[place] == separator:
            parts.append((offset + begin, text[begin:place]))
            begin = place + 1
        place += 1
    parts.append((offset + begin, text[begin:]))
    return parts


def _field(text: str, begin: int, piece: str) -> _Field:
    lead = len(piece) - len(piece.lstrip(_BLANKS))
    raw = piece.strip(_BLANKS)
    is_escaping = (len(raw) - len(raw.rstrip("\\"))) % 2 == 1
    raw += piece[lead + len(raw) : lead + len(raw) + is_escaping]  # a blank that was escaped
    return _Field(_unescaped(text, begin + lead, raw), begin + lead + 1, raw)


def _unescaped(text: str, begin: int, raw: str) -> str:
    done: list[str] = []
    place = 0
    while place < len(raw):
        if raw[place] != "\\":
            done.append(raw[place])
            place += 1
            continue
        if place + 1 == len(raw):
            hint = "a backslash is written \\\\"
            raise DagStringError(text, "a backslash stands before nothing", begin + place + 1, hint)
        done.append(_ESCAPED.get(raw[place + 1], raw[place + 1]))
        place += 2
    return "".join(done)


def _job(text: str, cut: _Cut) -> tuple[DagJob, list[_Field]]:
    """One job, and its parents with their places."""
    fields = list(cut.fields)
    flag = fields.pop() if fields[-1].text.upper() in _FLAGS else None
    parents = _parents(text, fields, cut)
    if len(fields) < 4:
        found = f"{len(cut.fields)} field{'s' if len(cut.fields) != 1 else ''}"
        message = (
            f"a job has an id, a header, what that needs, a priority and a delay; here are {found}"
        )
        raise DagStringError(text, message, cut.column, f"say  {_SHAPE}")
    delay = _number(text, fields.pop(), "delay", "milliseconds, 0 or more")
    priority = _number(text, fields.pop(), "priority", f"0 to {PRIORITY_MAX}", PRIORITY_MAX)
    name, *rest = fields
    if not name.text.removeprefix(DAG_PREFIX):
        raise DagStringError(text, "a job has no id", name.column)
    skills: list[str] = []
    if rest[0].text not in _PAYLOADS and rest[0].text not in _ARCHIVES:
        skills.append(rest.pop(0).text)
    if not rest:
        message = "here a header is missing"
        raise DagStringError(text, message, fields[-1].column, f"say  {_SHAPE}")
    header, payload = rest[0], rest[1:]
    job = DagJob(
        id=name.text.removeprefix(DAG_PREFIX),
        file="",
        content=None,
        args=(),
        handler="",
        skills=_skills(skills),
        is_service=header.text == _DEPLOY,
        port="",
        priority=priority,
        delay_ms=delay,
        parents=tuple(parent.text for parent in parents),
        affinity=flag is not None,
    )
    return _with_payload(text, job, header, payload), parents


def _with_payload(text: str, job: DagJob, header: _Field, payload: list[_Field]) -> DagJob:
    if header.text in _ARCHIVES:
        hint = "put a pipeline file beside the project's folder:  titan run pipeline.yaml"
        message = f"{header.text}: a DAG string carries no archives"
        raise DagStringError(text, message, header.column, hint, len(header.raw))
    forms = _PAYLOADS.get(header.text)
    if forms is None:
        if len(payload) != 1:
            message = (
                f"the handler {header.text} takes one field of data, and here are {len(payload)}"
            )
            hint = f"a script is written  {_SHAPE}"
            raise DagStringError(text, message, header.column, hint, max(1, len(header.raw)))
        skills = tuple(dict.fromkeys((*job.skills, header.text)))
        return job._replace(handler=header.text, args=(payload[0].text,), skills=skills)
    if len(payload) not in forms:
        message = f"{header.text} takes 1 to {max(forms)} fields, and here are {len(payload)}"
        hint = f"at most  {' | '.join(forms[max(forms)])}"
        raise DagStringError(text, message, header.column, hint, len(header.raw))
    given = dict(zip(forms[len(payload)], payload, strict=True))
    file = given["file"]
    if not file.text:
        raise DagStringError(text, f"{header.text} names no file", file.column)
    if file.text.lower() == "worker.jar":
        hint = "a worker is no job; spawn it:  titan deploy worker PORT"
        raise DagStringError(
            text, f"{file.text} would be a worker", file.column, hint, len(file.raw)
        )
    wanted = given.get("skill")
    return job._replace(
        file=file.text,
        content=_content(text, given.get("content"), file),
        args=given["args"].text if "args" in given else (),
        skills=_skills([*job.skills, wanted.text if wanted else ""]),
        port=_port(text, given.get("port")),
    )


def _parents(text: str, fields: list[_Field], cut: _Cut) -> list[_Field]:
    """Take the list of parents off the fields."""
    last = fields[-1] if fields else None
    if last is None or not last.raw.startswith("["):
        column = cut.column if last is None else last.column
        hint = "[] for none, [A,B] for two; behind it AFFINITY at most"
        raise DagStringError(text, "a job ends with its parents in brackets", column, hint)
    fields.pop()
    if not last.raw.endswith("]") or len(last.raw) < 2:
        message = "this bracket is not closed"
        raise DagStringError(text, message, last.column, "close it:  [A,B]")
    inner = last.raw[1:-1]
    if not inner.strip(_BLANKS):
        return []
    found = [_field(text, begin, piece) for begin, piece in _split(inner, ",", last.column)]
    for parent in found:
        if any(mark in parent.raw.replace("\\[", "").replace("\\]", "") for mark in "[]"):
            raise DagStringError(text, "brackets inside brackets", parent.column)
        if not parent.text:
            raise DagStringError(text, "a parent has no name", parent.column, "leave the comma out")
    return [parent._replace(text=parent.text.removeprefix(DAG_PREFIX)) for parent in found]


def _check_parents(text: str, jobs: Sequence[tuple[DagJob, list[_Field]]]) -> None:
    """Every parent is a job of the string, and nobody waits for himself."""
    known = {job.id for job, _ in jobs}
    for _, parents in jobs:
        for parent in parents:
            if parent.text not in known:
                message = f'no job of this string is called "{parent.text}"'
                raise DagStringError(text, message, parent.column, width=len(parent.raw))
    waiting = {job.id: set(job.parents) for job, _ in jobs}
    while True:
        free = [name for name, left in waiting.items() if not left]
        if not free:
            break
        for name in free:
            del waiting[name]
        for left in waiting.values():
            left.difference_update(free)
    for job, parents in jobs:
        stuck = next((one for one in parents if one.text in waiting), None)
        if job.id in waiting and stuck is not None:
            circle = ", ".join(sorted(waiting))
            message = f"these jobs wait for each other: {circle}"
            raise DagStringError(text, message, stuck.column, width=len(stuck.raw))


def _number(text: str, field: _Field, called: str, expected: str, most: int | None = None) -> int:
    is_number = field.text.isascii() and field.text.isdigit() and len(field.text) <= 15
    if is_number and (most is None or int(field.text) <= most):
        return int(field.text)
    shown = field.text or "nothing"
    message = f"the {called} is {expected}, not {shown}"
    raise DagStringError(text, message, field.column, width=max(1, len(field.raw)))


def _content(text: str, field: _Field | None, file: _Field) -> bytes | None:
    if field is None or not field.text:
        return None
    try:
        return base64.b64decode(field.text, validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"what {file.text} says is not base64: {error}"
        hint = "leave it empty for a file that is here or in perm_files"
        raise DagStringError(text, message, field.column, hint, len(field.raw)) from error


def _port(text: str, field: _Field | None) -> str:
    if field is None or field.text in {"", "0"}:
        return ""
    if field.text == "auto" or (field.text.isdigit() and 0 < int(field.text) <= 65_535):
        return field.text
    message = f"{field.text} is no port: 1 to 65535, or auto"
    raise DagStringError(text, message, field.column, width=len(field.raw))


def _skills(names: Sequence[str]) -> tuple[str, ...]:
    """GENERAL is what every job needs; beside a skill it adds nothing."""
    return tuple(dict.fromkeys(name for name in names if name and name != GENERAL))
