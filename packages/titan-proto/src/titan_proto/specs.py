"""What a user asks for: a run of jobs, as data.

The SDK builds these, the master admits or refuses them, the worker executes their ``Launch``.
A default here is what an absent field means on the wire: it can never change.
"""

from __future__ import annotations

from msgspec import Struct, field

from titan_proto.limits import (
    BACKOFF_PERCENT_DEFAULT,
    CATCHUP_WINDOW_MS_DEFAULT,
    GATE_TIMEOUT_MS_DEFAULT,
    HEALTH_INTERVAL_MS_DEFAULT,
    HEALTH_RETRIES_DEFAULT,
    HEALTH_TIMEOUT_MS_DEFAULT,
    PRIORITY_DEFAULT,
    RESTART_DELAY_MS_DEFAULT,
    RESTART_DELAY_MS_MAX_DEFAULT,
    RESTART_MAX_DEFAULT,
    RESTART_WITHIN_MS_DEFAULT,
    RETRY_DELAY_MS_DEFAULT,
    RETRY_DELAY_MS_MAX_DEFAULT,
    STOP_GRACE_MS_DEFAULT,
)
from titan_proto.states import OpenEnum


class JobKind(OpenEnum):
    """TASK ends by itself; SERVICE is meant to stay up; GATE is decided by a person."""

    TASK = "TASK"
    SERVICE = "SERVICE"
    GATE = "GATE"
    UNKNOWN = "UNKNOWN"


class LaunchKind(OpenEnum):
    """How a job's process is made."""

    SCRIPT = "SCRIPT"
    """A file of the workspace: ``.py``, ``.sh``, ``.jar`` by suffix, else executed directly."""
    SHELL = "SHELL"
    """A line for ``/bin/sh -c``."""
    COMMAND = "COMMAND"
    """An argument vector, no shell."""
    HANDLER = "HANDLER"
    """What a worker registered under a skill's name, with the arguments as its data."""
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


class Share(OpenEnum):
    """Who is given what a job leaves in its run's shared folder."""

    RUN = "RUN"
    """Whatever depends on it, wherever that lands."""
    NODE = "NODE"
    """What runs on workers of the same folder: nothing is carried anywhere."""
    UNKNOWN = "UNKNOWN"


class Intake(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Files of a job before this one that this one's working folder begins with."""

    job: str
    files: str
    """A path or a pattern, among those that the other job hands out."""


class Artifacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Files that are carried from job to job, wherever they run."""

    out: tuple[str, ...] = ()
    """Paths and patterns inside the working folder: each names a file at least, or the attempt fails."""
    take: tuple[Intake, ...] = ()


class Counted(Struct, frozen=True, kw_only=True):
    """So much of a resource, by name: of `cpu` thousandths of a core, of `memory` bytes, of all others
    units.
    """

    name: str
    amount: int


class Terms(Struct, frozen=True, kw_only=True, omit_defaults=True, cache_hash=True):
    """On which terms a job is placed, beyond skills and slots; most jobs have none."""

    counted: tuple[Counted, ...] = ()
    """What it takes of what its worker has, for as long as it holds its slot. Each name once."""
    worker: str = ""
    """The only worker that may have it: by its name (`host:port`), its id, or a host with all of its."""
    near: str = ""
    """A job before it: it goes where that one ran last ..."""
    required: bool = False
    """... and nowhere else; without, only if there is room."""
    spread: bool = False
    """It goes where the fewest jobs of its run are."""
    group: str = ""
    """Of the jobs of this group, in all runs, so many may run at once:"""
    limit: int = 0
    run_group: str = ""
    """Likewise of runs: one counts from its first placement to its end. The same for all jobs of a run."""
    run_limit: int = 0


class Needs(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker must offer. Jobs of equal needs form one class in the queue."""

    skills: tuple[str, ...] = ("GENERAL",)
    slots: int = 1
    """How much of a worker's room it takes; 0 for what hardly does anything."""
    terms: Terms | None = None


class Resources(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an attempt may use at most, with all that it starts; 0 is no limit of its own."""

    cpu_milli: int = 0
    """Thousandths of a core."""
    memory_bytes: int = 0
    pids: int = 0
    """Processes and threads."""


class Launch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The process to start. Exactly one of `script`, `shell`, `command`, `handler` is used, by `kind`."""

    kind: LaunchKind = LaunchKind.SCRIPT
    script: str = ""
    shell: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    artifact: ArtifactRef | None = None
    """What this job's workspace holds besides the run's; for a script found by name."""
    python: str = ""
    """What runs a ``.py`` script: a version (``3.12``: ``python3.12`` on the worker's PATH), or an
    absolute path there; empty is the worker's own."""
    resources: Resources | None = None
    share: Share = Share.RUN
    artifacts: Artifacts | None = None
    at_ms: int = 0
    """Not before this moment, in milliseconds since the epoch; the job's delay is counted from then. Also
    of a gate, which launches nothing: it opens no earlier."""
    handler: str = ""
    """The program that a worker registered under this name, which is one of its skills too."""


class RestartWhen(OpenEnum):
    """After which ends its worker starts a service's process again."""

    ALWAYS = "ALWAYS"
    ON_FAILURE = "ON_FAILURE"
    """Not after exit code 0."""
    NEVER = "NEVER"
    UNKNOWN = "UNKNOWN"


class RestartPolicy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a service's worker keeps it alive: at once the first time, then ever more patiently."""

    when: RestartWhen = RestartWhen.ALWAYS
    max: int = RESTART_MAX_DEFAULT
    """So many restarts ..."""
    within_ms: int = RESTART_WITHIN_MS_DEFAULT
    """... in so much time; one more is a crash loop, and the attempt ends."""
    delay_ms: int = RESTART_DELAY_MS_DEFAULT
    """Before the second restart ..."""
    backoff_percent: int = BACKOFF_PERCENT_DEFAULT
    """... and so many hundredths of that before each next one ..."""
    max_delay_ms: int = RESTART_DELAY_MS_MAX_DEFAULT
    """... but never more than this."""


class HealthKind(OpenEnum):
    """How it is found out whether a service is well."""

    HTTP = "HTTP"
    """A GET comes to a status of 200 to 399."""
    TCP = "TCP"
    """Its port takes connections."""
    COMMAND = "COMMAND"
    """A command beside it ends with exit code 0."""
    UNKNOWN = "UNKNOWN"


class HealthCheck(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a service counts as healthy, and when it is started again though it runs."""

    kind: HealthKind = HealthKind.TCP
    path: str = "/"
    """Of HTTP: what is asked for."""
    port: int = 0
    """Of HTTP and TCP; 0: the service's own."""
    command: tuple[str, ...] = ()
    """Of COMMAND: program and arguments, no shell; in the service's folder and environment."""
    interval_ms: int = HEALTH_INTERVAL_MS_DEFAULT
    """Between two checks."""
    timeout_ms: int = HEALTH_TIMEOUT_MS_DEFAULT
    """Of one check."""
    retries: int = HEALTH_RETRIES_DEFAULT
    """So many failures in a row, and it is unhealthy ..."""
    start_period_ms: int = 0
    """... not counting those before its first success in so much time after it was started."""


class ServiceSection(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What only a service has. Healthy means: its check passes; without one: its port answers, or, without
    one, it has started.
    """

    port: int = 0
    """A fixed port on the worker's host, told to the process as ``$PORT``; 0 means none."""
    port_auto: bool = False
    """The worker picks a free port."""
    restart: RestartPolicy = RestartPolicy()
    health: HealthCheck | None = None
    replicas: int = 1
    """So many instances, each with an attempt, a port and a log of its own."""


class RetryCause(OpenEnum):
    """Failures of a job's own that may be tried again. Losing a worker is none of them."""

    EXIT = "EXIT"
    """An exit code other than 0."""
    SIGNAL = "SIGNAL"
    TIMEOUT = "TIMEOUT"
    """An attempt outlasted its `timeout`."""
    START = "START"
    """Its workspace or its process could not be made."""
    UNKNOWN = "UNKNOWN"


class RetryPolicy(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How often, when and after what a job is tried again."""

    limit: int = 0
    """Further tries after the first failure; lost attempts do not count."""
    delay_ms: int = RETRY_DELAY_MS_DEFAULT
    """Before the first further try ..."""
    backoff_percent: int = BACKOFF_PERCENT_DEFAULT
    """... and so many hundredths of that before each next one ..."""
    max_delay_ms: int = RETRY_DELAY_MS_MAX_DEFAULT
    """... but never more than this."""
    jitter: bool = True
    """Shift each delay by up to a quarter, so that many jobs do not come back at once."""
    causes: tuple[RetryCause, ...] = (
        RetryCause.EXIT,
        RetryCause.SIGNAL,
        RetryCause.TIMEOUT,
        RetryCause.START,
    )
    not_exit_codes: tuple[int, ...] = ()
    """Exit codes that say: trying again is of no use."""
    after_loss: bool = True
    """Whether a lost attempt, which may have done its work, is followed by another. Without, the job
    is done at most once: it goes with `exclusive` and a limit of 0."""


class GateExpiry(OpenEnum):
    """What becomes of a gate about which nobody decided in time."""

    REJECT = "REJECT"
    APPROVE = "APPROVE"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


class GateSection(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What only a gate has. It occupies no slot and no worker."""

    message: str = ""
    """The question that is put to whoever decides."""
    timeout_ms: int = GATE_TIMEOUT_MS_DEFAULT
    """From its opening; 0 means that it waits for ever."""
    on_timeout: GateExpiry = GateExpiry.REJECT


class Trigger(OpenEnum):
    """Which ends of its dependencies let a job begin. It is decided once all of them have ended.

    One that was skipped because of a failure above it counts as failed here, too.
    """

    ALL_SUCCEEDED = "ALL_SUCCEEDED"
    ALL_DONE = "ALL_DONE"
    """However they ended."""
    ANY_FAILED = "ANY_FAILED"
    ANY_SUCCEEDED = "ANY_SUCCEEDED"
    NONE_FAILED = "NONE_FAILED"
    """Each succeeded, or was skipped though nothing had failed."""
    UNKNOWN = "UNKNOWN"


class Shape(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What there is to a job beside its dependencies, as a part of its run: whether it begins."""

    trigger: Trigger = Trigger.ALL_SUCCEEDED
    when: str = ""
    """A condition (`conditions`), looked at once its dependencies have ended as they should."""
    cell_of: str = ""
    """The job with a matrix of which this is a cell."""
    cell: dict[str, str] = field(default_factory=dict)
    """Of a cell: its values."""

    @property
    def is_conditional(self) -> bool:
        """Whether the job may end without being tried though no dependency of it failed."""
        return self.trigger is not Trigger.ALL_SUCCEEDED or bool(self.when)


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
    retries: RetryPolicy = RetryPolicy()
    timeout_ms: int = 0
    """Of one attempt, from the start of its process; 0 means none."""
    job_timeout_ms: int = 0
    """Of the job as a whole, from the placement of its first attempt; 0 means none."""
    exclusive: bool = False
    """Two attempts never run at once: its own worker stops it before the master may give it away."""
    gate: GateSection | None = None

    def begins_at_ms(self, ready_ms: int) -> int:
        """When it may be queued, whose dependencies were all met at `ready_ms`."""
        return max(ready_ms, self.launch.at_ms) + self.delay_ms


class RunSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A graph of jobs to run."""

    name: str
    jobs: tuple[JobSpec, ...]
    workspace: ArtifactRef | None = None
    """What every job's workspace starts from."""
    shapes: dict[str, Shape] = field(default_factory=dict)
    """By job, of those that have one: what concerns the graph and not what is executed."""
    params: dict[str, str] = field(default_factory=dict)
    """Values that were given for this run; they stand in its jobs already, and conditions read them."""


class Overlap(OpenEnum):
    """What becomes of a slot that comes while the schedule's last run goes on."""

    SKIP = "SKIP"
    QUEUE = "QUEUE"
    """It begins once that run has ended, slot after slot."""
    ALLOW = "ALLOW"
    """It begins beside it."""
    REPLACE = "REPLACE"
    """That run is cancelled, and this one begins once it has ended."""
    UNKNOWN = "UNKNOWN"


class Catchup(OpenEnum):
    """What becomes of slots whose time passed while no master was there, or none that could begin one."""

    NONE = "NONE"
    LATEST = "LATEST"
    """The last of them begins, if none has come since."""
    ALL = "ALL"
    UNKNOWN = "UNKNOWN"


class ScheduleSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When something is run, and what becomes of a time that cannot be kept."""

    crons: tuple[str, ...]
    """Five fields, a macro or `@every 5m` each; it fires at the times of all of them."""
    zone: str = "UTC"
    overlap: Overlap = Overlap.SKIP
    catchup: Catchup = Catchup.NONE
    catchup_window_ms: int = CATCHUP_WINDOW_MS_DEFAULT
    """No slot older than that is caught up with."""
    jitter_ms: int = 0
    """Each slot begins up to so much later, by an amount that is always the same for that slot."""
    start_ms: int = 0
    """No slot before this moment; `@every` counts from here. 0: from when it was put there."""
    end_ms: int = 0
    """No slot after this moment; 0 means none."""
    pause_on_failure: bool = False
    """It pauses itself once a run of it has FAILED."""
