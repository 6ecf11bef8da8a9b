"""What a user asks for: a run of jobs, as data.

The SDK builds these, the master admits or refuses them, the worker executes their ``Launch``.
A default here is what an absent field means on the wire: it can never change.
"""

from __future__ import annotations

from msgspec import Struct, field

from titan_proto.limits import PRIORITY_DEFAULT, STOP_GRACE_MS_DEFAULT
from titan_proto.states import OpenEnum


class JobKind(OpenEnum):
    """TASK ends by itself; SERVICE is meant to stay up."""

    TASK = "TASK"
    SERVICE = "SERVICE"
    UNKNOWN = "UNKNOWN"


class LaunchKind(OpenEnum):
    """How a job's process is made."""

    SCRIPT = "SCRIPT"
    """A file of the workspace: ``.py``, ``.sh``, ``.jar`` by suffix, else executed directly."""
    SHELL = "SHELL"
    """A line for ``/bin/sh -c``."""
    COMMAND = "COMMAND"
    """An argument vector, no shell."""
    UNKNOWN = "UNKNOWN"


class ArtifactFormat(OpenEnum):
    """ZIP is unpacked into the workspace; FILE is put there under its name."""

    ZIP = "ZIP"
    FILE = "FILE"
    UNKNOWN = "UNKNOWN"


class ArtifactRef(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Names immutable bytes: where they go in the workspace, and how."""

    digest: str
    size_bytes: int
    format: ArtifactFormat = ArtifactFormat.ZIP
    name: str = ""
    """For FILE: the path inside the workspace, relative, with forward slashes."""


class Needs(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker must offer. Jobs of equal needs form one class in the queue."""

    skills: tuple[str, ...] = ("GENERAL",)


class Launch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The process to start. Exactly one of `script`, `shell`, `command` is used, by `kind`."""

    kind: LaunchKind = LaunchKind.SCRIPT
    script: str = ""
    shell: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    artifact: ArtifactRef | None = None
    """What this job's workspace holds besides the run's; for a script found by name."""


class ServiceSection(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What only a service has. Healthy means: its port answers, or, without one, it has started."""

    port: int = 0
    """A fixed port on the worker's host, told to the process as ``$PORT``; 0 means none."""
    port_auto: bool = False
    """The worker picks a free port."""


class JobSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One node of a run."""

    id: str
    launch: Launch
    kind: JobKind = JobKind.TASK
    dependencies: tuple[str, ...] = ()
    needs: Needs = Needs()
    priority: int = PRIORITY_DEFAULT
    """0 to 10, 10 first; first come first served inside one."""
    delay_ms: int = 0
    """Wait between the moment the job becomes ready and its queueing."""
    affinity: bool = False
    """Prefer the worker on which a parent ran."""
    stop_grace_ms: int = STOP_GRACE_MS_DEFAULT
    """Between SIGTERM and SIGKILL."""
    service: ServiceSection | None = None


class RunSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A graph of jobs to run."""

    name: str
    jobs: tuple[JobSpec, ...]
    workspace: ArtifactRef | None = None
    """What every job's workspace starts from."""
