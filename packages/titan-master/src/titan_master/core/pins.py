"""Which artifacts a state still needs: those of live runs, of services that are wanted, of schedules.

Whatever else is stored is of use only to who runs an ended run again, and goes some time after it was last
wanted. Pure; called by ``data/sweeping.py`` through ``app.py``, and by ``care/doctor.py``. A new place in
the state that names artifacts belongs in here: `test_every_place_that_may_name_an_artifact_is_known`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from titan_master.core.state import State
from titan_proto.messages.worker import Left
from titan_proto.specs import ArtifactRef, JobSpec, RunSpec


class _Launch(Struct):
    """What a job of a schedule's run names; the rest of it is not even decoded."""

    artifact: ArtifactRef | None = None


class _Job(Struct):
    launch: _Launch


class _Run(Struct):
    jobs: tuple[_Job, ...]
    workspace: ArtifactRef | None = None


_RUN: Final = msgspec.msgpack.Decoder(_Run)


class Pins(NamedTuple):
    """Artifacts by digest."""

    artifacts: frozenset[str]
    lists: frozenset[str]
    """Lists of files: what they name is needed with them."""


class Noted(NamedTuple):
    """What a state named at one moment. It changes no more, and can be looked into elsewhere."""

    known: Pins
    runs: tuple[bytes, ...]
    """The runs of schedules, as they are stored."""

    def pins(self) -> Pins:
        """What may not go. With a thousand schedules of thousands of jobs this takes long."""
        artifacts = set(self.known.artifacts)
        for data in self.runs:
            run = _RUN.decode(data)
            _add_artifacts(artifacts, run.workspace, run.jobs)
        return Pins(frozenset(artifacts), self.known.lists)


def noted(state: State) -> Noted:
    """What is needed, but for what has to be decoded first. It looks at every live job once."""
    artifacts: set[str] = set()
    lists: set[str] = set()
    for run in state.runs.values():
        _add_artifacts(artifacts, run.workspace, (job.spec for job in run.order))
        _add_lists(lists, (job.left for job in run.order if job.left is not None))
    for service in state.services.values():
        specs = () if service.spec is None else (service.spec,)
        _add_artifacts(artifacts, service.workspace, specs)
        _add_lists(lists, (layer.left for layer in service.layers))
        _add_lists(lists, service.intake.values())
    runs = tuple(schedule.run for schedule in state.schedules.values())
    return Noted(Pins(frozenset(artifacts), frozenset(lists)), runs)


def pinned(state: State) -> Pins:
    """What may not go."""
    return noted(state).pins()


def needed(spec: RunSpec, left: Iterable[Left]) -> Pins:
    """What a run of that spec needs that takes over what was left so."""
    artifacts: set[str] = set()
    lists: set[str] = set()
    _add_artifacts(artifacts, spec.workspace, spec.jobs)
    _add_lists(lists, left)
    return Pins(frozenset(artifacts), frozenset(lists))


def _add_artifacts(
    found: set[str], workspace: ArtifactRef | None, specs: Iterable[JobSpec | _Job]
) -> None:
    if workspace is not None:
        found.add(workspace.digest)
    for spec in specs:
        if spec.launch.artifact is not None:
            found.add(spec.launch.artifact.digest)


def _add_lists(found: set[str], left: Iterable[Left]) -> None:
    found.update(one.digest for one in left if one.digest)
