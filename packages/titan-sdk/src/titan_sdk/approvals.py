"""Approvals: a job that asks for one gets a gate behind it, and who came after it waits for that.

Decides where such a gate stands and how it is called. What a gate asks is said by `keys`; whether
the graph is valid, by `titan_proto.validation`. Called by `client` and by `pipeline`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from titan_proto.limits import JOB_ID_CHARS
from titan_proto.specs import GateSection, JobKind, JobSpec, Launch

GATE_PREFIX: Final = "hitl-gate-"
"""Pipelines written for the original name their gates so; this stays."""


def gate_id(job_id: str) -> str:
    """How the gate behind a job is called."""
    return GATE_PREFIX + job_id


def obstacle(job_id: str, ids: Collection[str]) -> tuple[str, str]:
    """Why no gate can stand behind this job (message, hint); empty texts if one can."""
    name = gate_id(job_id)
    if len(name) > JOB_ID_CHARS:
        most = JOB_ID_CHARS - len(GATE_PREFIX)
        return (
            f"asks for approval, and its gate, {name[:40]}…, would have {len(name)} characters",
            f"an id of at most {most} characters leaves room for it (JOB_ID_CHARS: {JOB_ID_CHARS})",
        )
    if name in ids:
        return (
            f"asks for approval, and its gate would be called {name} as another job is",
            "give that job another id, or make it the gate: type: APPROVAL",
        )
    return "", ""


def with_gates(
    jobs: Sequence[JobSpec], sections: Mapping[int, GateSection]
) -> list[tuple[int, JobSpec]]:
    """The jobs with their gates right behind them, each beside the place of the job it is from.

    Args:
        jobs: in their order.
        sections: what is asked behind which of them, by place.
    """
    behind = {jobs[place].id: gate_id(jobs[place].id) for place in sections}
    done: list[tuple[int, JobSpec]] = []
    for place, job in enumerate(jobs):
        moved = job
        if not behind.keys().isdisjoint(job.dependencies):
            after = dict.fromkeys(behind.get(parent, parent) for parent in job.dependencies)
            moved = replace(job, dependencies=tuple(after))
        done.append((place, moved))
        if place in sections:
            gate = JobSpec(
                id=gate_id(job.id),
                launch=Launch(),
                kind=JobKind.GATE,
                dependencies=(job.id,),
                gate=sections[place],
            )
            done.append((place, gate))
    return done
