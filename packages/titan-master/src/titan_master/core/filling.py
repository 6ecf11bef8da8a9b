"""Filling in: what stands in a job's launch in place of ``${{ jobs.A.outputs.key }}`` when it is placed.

Pure questions about a run. What is asked twice is answered alike, because an output is recorded with its
job's success and never changes: an order that goes out again is the same order. Called by ``placement``
before it places, and by ``workers`` for the order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from msgspec.structs import replace

from titan_master.core.state import Job, Run
from titan_proto import outputs
from titan_proto.limits import ARGS_BYTES, ENV_BYTES
from titan_proto.specs import JobSpec, Launch
from titan_proto.states import JobState

VARIABLE: Final = "TITAN_VALUE_"
"""With a number behind it: the variable through which a shell line is given a value."""

_KEYS_SHOWN: Final = 8


class Missing(Exception):
    """The launch cannot be made; the text says why, for people."""


def filled_in(run: Run, job: Job) -> Launch:
    """The job's launch with its parents' values. Raises Missing.

    An argument or a value of the environment gets the text itself: nobody reads it again. A line for the
    shell would read it as code, so that gets the name of a variable, and the variable has the value.
    """
    launch = job.spec.launch
    if not outputs.is_used(launch):
        return launch

    def value(match: re.Match[str]) -> str:
        return _value(run, match)

    def in_all(texts: Iterable[str]) -> tuple[str, ...]:
        return tuple(_each(value, text) for text in texts)

    named: dict[str, str] = {}
    """By their values: the variables for the shell's line."""
    shell = _each(lambda match: _by_name(named, value(match)), launch.shell)
    env = {name: _each(value, text) for name, text in launch.env.items()}
    filled = replace(
        launch,
        shell=shell,
        command=in_all(launch.command),
        args=in_all(launch.args),
        env=env | {name: text for text, name in named.items()},
    )
    _check_size(
        "arguments", (filled.shell, *filled.command, *filled.args), "ARGS_BYTES", ARGS_BYTES
    )
    environment = (*filled.env, *filled.env.values())
    _check_size("an environment", environment, "ENV_BYTES", ENV_BYTES)
    return filled


def on_its_own(run: Run, job: Job) -> JobSpec:
    """What the job is without its run: filled in, and after nothing. Raises Missing."""
    return replace(job.spec, launch=filled_in(run, job), dependencies=())


def _each(replacement: Callable[[re.Match[str]], str], text: str) -> str:
    return outputs.EXPRESSION.sub(replacement, text) if outputs.OPENING in text else text


def _value(run: Run, match: re.Match[str]) -> str:
    source, key = run.jobs.get(match["job"]), match["key"]
    written = (source.outputs if source is not None else None) or {}
    if key not in written:
        shown = ", ".join(islice(sorted(written), _KEYS_SHOWN))
        more = ", …" if len(written) > _KEYS_SHOWN else ""
        if source is not None and source.state is not JobState.SUCCEEDED:
            raise Missing(f"it uses {match.group()}, and {match['job']} is {source.state}")
        raise Missing(
            f"it uses {match.group()}, and {match['job']} wrote "
            f"{'only ' + shown + more if written else 'no outputs'} to its $TITAN_OUTPUT"
        )
    return written[key]


def _by_name(named: dict[str, str], value: str) -> str:
    """The variable that has this value, written so that a letter may follow it."""
    return f"${{{named.setdefault(value, f'{VARIABLE}{len(named) + 1}')}}}"


def _check_size(what: str, texts: Iterable[str], limit: str, most: int) -> None:
    size = sum(len(text.encode()) + 1 for text in texts)
    if size > most:
        raise Missing(
            f"with the outputs that it uses it has {what} of {size} bytes, more than {limit} ({most})"
        )
