"""A job with a matrix → its cells: jobs `ID.1`, `ID.2` and so on, each with values of its own.

Decides what cells are called, what stands for `${{ matrix.KEY }}` in them, and that whoever depended on the
job depends on all of them. Which cells there are is read by `keys`; whether the whole is a valid run is
asked of `titan_proto.validation` afterwards. Called by `pipeline` and by `staging`, after the gates are in.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from titan_proto.ids import is_job_id
from titan_proto.limits import JOB_ID_CHARS, MATRIX_EDGES
from titan_proto.outputs import EXPRESSION_OF, OPENING
from titan_proto.specs import Intake, JobSpec, Launch, Shape

Cells = tuple[dict[str, str], ...]
"""The values of each cell, in their order."""

_USUAL: Final = Shape()
_NUMBERED = re.compile(r"(.+)\.(\d+)\Z", re.ASCII)


class Obstacle(NamedTuple):
    """Why a matrix cannot be taken apart."""

    job: int
    key: str
    """At which of the job's keys."""
    message: str
    hint: str


def cell_id(job_id: str, number: int) -> str:
    """How a cell is called; they count from 1."""
    return f"{job_id}.{number}"


def obstacles(jobs: Sequence[JobSpec], matrices: Mapping[str, Cells]) -> list[Obstacle]:
    """What keeps the matrices of these jobs from being taken apart; looked at before anything is made."""
    if not matrices:
        return []
    found: list[Obstacle] = []
    edges = 0
    for place, job in enumerate(jobs):
        cells = matrices.get(job.id)
        if cells is not None and not is_job_id(cell_id(job.id, len(cells))):
            message = (
                f"has a matrix, and its last cell would be called {cell_id(job.id, len(cells))}"
            )
            hint = f"a shorter id leaves room for that (JOB_ID_CHARS: {JOB_ID_CHARS})"
            found.append(Obstacle(place, "id", message, hint))
        match = _NUMBERED.match(job.id)
        if match is not None and match[1] in matrices:
            message = f"is called like a cell of {match[1]}, which has a matrix"
            found.append(Obstacle(place, "id", message, "give it another id"))
        above = sum(len(matrices.get(parent, ((),))) for parent in set(job.dependencies))
        edges += above * len(cells or ((),))
        if edges > MATRIX_EDGES:
            message = (
                f"and the jobs before it depend on cells in more than MATRIX_EDGES ({MATRIX_EDGES:,}) "
                "ways: each cell waits for all of the other matrix"
            )
            hint = "put a job without a matrix between the two"
            found.append(Obstacle(place, "dependencies", message, hint))
            break
    return found


def with_cells(
    placed: Iterable[tuple[int, JobSpec]],
    shapes: Mapping[str, Shape],
    matrices: Mapping[str, Cells],
) -> tuple[list[tuple[int, JobSpec]], dict[str, Shape]]:
    """The jobs with cells in place of those that have a matrix, and what their run says of them.

    Args:
        placed: the jobs in their order, each beside the place of the job it is from.
        shapes: by job.
        matrices: by job.
    """
    if not matrices:
        return list(placed), dict(shapes)
    made: list[tuple[int, JobSpec]] = []
    shaped: dict[str, Shape] = {}
    for place, job in placed:
        after = _each(job.dependencies, matrices)
        if after != job.dependencies:
            job = replace(job, dependencies=after)  # noqa: PLW2901 - the same job
        artifacts = job.launch.artifacts
        if artifacts is not None and any(take.job in matrices for take in artifacts.take):
            take = tuple(
                Intake(job=name, files=one.files)
                for one in artifacts.take
                for name in _each((one.job,), matrices)
            )
            launch = replace(job.launch, artifacts=replace(artifacts, take=take))
            job = replace(job, launch=launch)  # noqa: PLW2901 - the same job
        cells = matrices.get(job.id)
        if cells is None:
            made.append((place, job))
            if job.id in shapes:
                shaped[job.id] = shapes[job.id]
            continue
        for number, values in enumerate(cells, 1):
            name = cell_id(job.id, number)
            made.append((place, replace(substituted(job, "matrix", values), id=name)))
            shaped[name] = replace(shapes.get(job.id, _USUAL), cell_of=job.id, cell=values)
    return made, shaped


def _each(names: tuple[str, ...], matrices: Mapping[str, Cells]) -> tuple[str, ...]:
    if matrices.keys().isdisjoint(names):
        return names
    return tuple(
        one
        for name in names
        for one in (
            [cell_id(name, number) for number in range(1, len(matrices[name]) + 1)]
            if name in matrices
            else [name]
        )
    )


# -- what stands for an expression ----------------------------------------------------------------
def substituted(job: JobSpec, source: str, values: Mapping[str, str]) -> JobSpec:
    """The job with `values` where it says `${{ SOURCE.KEY }}`; what is not among them stays as it is.

    An argument, a value of the environment and a skill get the text itself. A line for the shell would read
    it as code: that gets the name of a variable, and the variable has the value.
    """
    pattern = EXPRESSION_OF[source]

    def text(given: str) -> str:
        if OPENING not in given:
            return given
        return pattern.sub(lambda match: values.get(match["key"], match.group()), given)

    launch, needs = job.launch, job.needs
    if _is_used(launch):
        used: dict[str, str] = {}
        shell = pattern.sub(lambda match: _variable(source, match, values, used), launch.shell)
        launch = replace(
            launch,
            shell=shell,
            command=tuple(map(text, launch.command)),
            args=tuple(map(text, launch.args)),
            env={name: text(given) for name, given in launch.env.items()} | used,
        )
    if any(OPENING in skill for skill in needs.skills):
        needs = replace(needs, skills=tuple(map(text, needs.skills)))
    if launch is job.launch and needs is job.needs:
        return job
    return replace(job, launch=launch, needs=needs)


def _variable(
    source: str, match: re.Match[str], values: Mapping[str, str], used: dict[str, str]
) -> str:
    key = match["key"]
    if key not in values:
        return match.group()
    name = f"{VARIABLES[source]}{key}"
    used[name] = values[key]
    return f"${{{name}}}"


VARIABLES: Final = {"matrix": "TITAN_MATRIX_", "params": "TITAN_PARAM_"}
"""With a key behind it: the variable that has the value in a line for the shell."""


def _is_used(launch: Launch) -> bool:
    texts: Collection[str] = (launch.shell, *launch.command, *launch.args, *launch.env.values())
    return any(OPENING in one for one in texts)
