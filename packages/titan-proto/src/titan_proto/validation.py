"""What a valid RunSpec is, said once: the SDK refuses offline exactly what the master would refuse.

Finds everything wrong at once, in time linear in jobs and edges and without recursion, so that a
thread can check the largest run while others go on. It looks at the spec alone: whether files,
skills or workers exist is for others to say. Called by the SDK before anything is sent and by the
master before anything is admitted.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from titan_proto import conditions, outputs
from titan_proto.errors import Problem
from titan_proto.ids import JOB_ID_RULE, is_digest, is_job_id
from titan_proto.limits import (
    ARGS_BYTES,
    ARTIFACT_BYTES,
    ARTIFACT_PATTERNS,
    AT_MS,
    BACKOFF_PERCENT,
    BACKOFF_PERCENT_MIN,
    CONCURRENCY,
    CPU_MILLI,
    CPU_MILLI_MIN,
    DELAY_MS,
    DEPENDENCIES_PER_JOB,
    ENV_BYTES,
    FILE_NAME_BYTES,
    GATE_MESSAGE_CHARS,
    GROUP_CHARS,
    HEALTH_COMMAND_BYTES,
    HEALTH_INTERVAL_MS_MIN,
    HEALTH_MS,
    HEALTH_RETRIES,
    JOB_SPEC_BYTES,
    JOBS_PER_RUN,
    MEMORY_BYTES,
    MEMORY_BYTES_MIN,
    NAME_CHARS,
    OUTPUT_VALUE_BYTES,
    OUTPUTS_FROM_AFAR,
    PARAMS_PER_RUN,
    PIDS,
    PRIORITY_MAX,
    REPLICAS,
    RESOURCE_AMOUNT,
    RESOURCE_CHARS,
    RESOURCES_PER_JOB,
    RESTARTS,
    RETRIES,
    RETRY_DELAY_MS,
    SKILL_CHARS,
    SKILLS_PER_JOB,
    STOP_GRACE_MS,
    TIMEOUT_MS,
    WORKER_NAME_CHARS,
    WORKER_SLOTS,
)
from titan_proto.specs import (
    ArtifactFormat,
    ArtifactRef,
    Artifacts,
    Counted,
    GateExpiry,
    GateSection,
    HealthCheck,
    HealthKind,
    JobKind,
    JobSpec,
    Launch,
    LaunchKind,
    Needs,
    Resources,
    RestartPolicy,
    RestartWhen,
    RetryCause,
    RetryPolicy,
    RunSpec,
    ServiceSection,
    Shape,
    Share,
    Terms,
    Trigger,
)

PROBLEMS_MAX: Final = 200
"""How many are listed; a last one says how many more there are."""

UNKNOWN_PARENT: Final = "Y201"
BAD_JOB_ID: Final = "Y202"
DUPLICATE_ID: Final = "Y203"
CYCLE: Final = "Y204"
REPEATED_PARENT: Final = "Y205"
BAD_RUN_NAME: Final = "Y206"
JOB_COUNT: Final = "Y207"
BAD_LAUNCH: Final = "Y208"
BAD_PATH: Final = "Y209"
BAD_TEXT: Final = "Y210"
BAD_ENV_NAME: Final = "Y211"
TOO_LARGE: Final = "Y212"
OUT_OF_RANGE: Final = "Y213"
BAD_SKILL: Final = "Y214"
BAD_SERVICE: Final = "Y215"
UNKNOWN_KIND: Final = "Y216"
BAD_ARTIFACT: Final = "Y217"
BAD_RETRY: Final = "Y218"
BAD_GATE: Final = "Y219"
BAD_PYTHON: Final = "Y220"
BAD_EXPRESSION: Final = "Y221"
BAD_FILES: Final = "Y222"
BAD_SHAPE: Final = "Y223"
BAD_WHEN: Final = "Y224"
BAD_PARAM: Final = "Y226"
BAD_RESOURCE: Final = "Y240"
BAD_PLACE: Final = "Y241"
MORE: Final = "Y299"

_SKILL = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.:+-]{{0,{SKILL_CHARS - 1}}}\Z")
_SKILL_RULE: Final = (
    f"letters, digits, '_', '.', ':', '+', '-'; starts with a letter, a digit or '_'; "
    f"at most {SKILL_CHARS} characters"
)
_RESOURCE = re.compile(rf"[A-Za-z_][A-Za-z0-9_.-]{{0,{RESOURCE_CHARS - 1}}}\Z")
_RESOURCE_RULE: Final = f"letters, digits, '_', '.', '-'; starts with a letter or '_'; at most {RESOURCE_CHARS} characters"
_OTHER_LIMITS: Final = frozenset({"pids", "disk"})
"""Names that mean a limit, or may come to: nothing that is counted is called so."""
_PYTHON_VERSION = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}t?)?\Z")
PYTHON_RULE: Final = "a version such as 3.12, or an absolute path on the worker"
_USUAL_SKILLS: Final = Needs().skills
_COUNTED_MOST: Final = {
    "cpu": (CPU_MILLI, "CPU_MILLI"),
    "memory": (MEMORY_BYTES, "MEMORY_BYTES"),
}
_HTTP_PATH = re.compile(r"/[!-~]{0,2000}\Z")
_USUAL_RETRIES: Final = RetryPolicy()
_NOTHING: Final = Launch()
_EXIT_CODE_MAX: Final = 255
_HINTS_MAX: Final = 20
"""Near names are looked for so often at most: each search reads many names."""
_NEAR_NAMES: Final = 2_000
_CYCLE_SHOWN: Final = 12
_QUOTED_CHARS: Final = 60
_PATH_CHARS: Final = 4_096
_PATH_PART_BYTES: Final = 255
_ENCODER: Final = msgspec.msgpack.Encoder()


def problems(spec: RunSpec) -> tuple[Problem, ...]:
    """Everything wrong with `spec`, in its order; empty if the master would take it."""
    found: list[Problem] = []
    more = 0
    for problem in _all(spec):
        if len(found) < PROBLEMS_MAX:
            found.append(problem)
        else:
            more += 1
    if more:
        found.append(Problem(where="", message=f"and {more} more problems", code=MORE))
    return tuple(found)


def is_inside(path: str) -> bool:
    """Whether a relative path with forward slashes stays where it starts, and can be a file."""
    if not path or len(path) > _PATH_CHARS or "\0" in path or "\\" in path:
        return False
    return all(
        part not in {"", ".", ".."} and len(part.encode("utf-8", "replace")) <= _PATH_PART_BYTES
        for part in path.split("/")
    )


def is_python(python: str) -> bool:
    """Whether it can name an interpreter: a version, or an absolute path."""
    if python.startswith("/"):
        return len(python) <= _PATH_CHARS and python.isprintable() and not python.endswith("/")
    return _PYTHON_VERSION.match(python) is not None


def takes_python(script: str) -> bool:
    """Whether a worker gives this script to a Python at all."""
    return script.endswith(".py")


def resource_name_fault(name: str) -> str:
    """The rule that `name` breaks as the name of a counted resource; empty if it keeps it."""
    if name in _OTHER_LIMITS:
        return f"another name: {name} is not counted"
    return "" if _RESOURCE.match(name) else _RESOURCE_RULE


def file_name_fault(name: str) -> str:
    """Why nothing in ``perm_files/`` can be called so, as the end of a sentence; empty if it can.

    Stricter than a path in a workspace: other people's tools will meet these names, on systems
    where a trailing dot, a control character or a colon means something else.
    """
    if not is_inside(name):
        return "is no relative path with forward slashes that stays inside"
    if not name.isprintable() or any(char in ':*?"<>|' for char in name):
        return 'has a character that is not allowed: control characters and any of :*?"<>|'
    if len(name.encode("utf-8", "replace")) + 2 * (name.count("/") + name.count("%")) > (
        FILE_NAME_BYTES
    ):
        return f"is longer than FILE_NAME_BYTES ({FILE_NAME_BYTES})"
    for part in name.split("/"):
        if part.startswith((".", " ")) or part.endswith((".", " ")):
            return "has a part that begins or ends with a dot or a space"
    return ""


def _all(spec: RunSpec) -> Iterator[Problem]:
    yield from _run_problems(spec)
    index: dict[str, int] = {}
    for number, job in enumerate(spec.jobs):
        where = f"jobs[{number}]"
        if not is_job_id(job.id):
            yield Problem(
                where=f"{where}.id",
                message=f"{_quoted(job.id)} cannot be a job's id",
                hint=JOB_ID_RULE,
                code=BAD_JOB_ID,
            )
        first = index.setdefault(job.id, number)
        if first != number:
            yield Problem(
                where=f"{where}.id",
                message=f"job {_named(job.id)} is there twice; the first is jobs[{first}]",
                code=DUPLICATE_ID,
            )
        yield from _job_problems(where, job)
    if spec.shapes:
        yield from _shapes_problems(spec, index)
    yield from _graph_problems(spec, index)


# -- the run and each job -------------------------------------------------------------------------


def _run_problems(spec: RunSpec) -> Iterator[Problem]:
    if not spec.name.strip():
        yield Problem(where="name", message="the run has no name", code=BAD_RUN_NAME)
    elif len(spec.name) > NAME_CHARS or not spec.name.isprintable():
        yield Problem(
            where="name",
            message=f"{_quoted(spec.name)} cannot be a run's name",
            hint=f"printable text of at most {NAME_CHARS} characters (NAME_CHARS)",
            code=BAD_RUN_NAME,
        )
    if not spec.jobs:
        yield Problem(where="jobs", message="the run has no jobs", code=JOB_COUNT)
    elif len(spec.jobs) > JOBS_PER_RUN:
        yield Problem(
            where="jobs",
            message=f"{len(spec.jobs)} jobs are more than JOBS_PER_RUN ({JOBS_PER_RUN})",
            code=JOB_COUNT,
        )
    if spec.workspace is not None:
        yield from _artifact_problems("workspace", spec.workspace)
    if spec.params:
        yield from _param_problems(spec.params)
    terms = (job.needs.terms for job in spec.jobs if job.kind is not JobKind.GATE)
    groups = dict.fromkeys(
        (one.run_group, one.run_limit) if one is not None else ("", 0) for one in terms
    )
    if len(groups) > 1:
        yield Problem(
            where="jobs",
            message="the jobs of a run have one concurrency group of runs, and one limit of it",
            code=BAD_PLACE,
        )


def _param_problems(params: Mapping[str, str]) -> Iterator[Problem]:
    if len(params) > PARAMS_PER_RUN:
        yield Problem(
            where="params",
            message=f"{len(params)} params are more than PARAMS_PER_RUN ({PARAMS_PER_RUN})",
            code=OUT_OF_RANGE,
        )
    for name, value in params.items():
        size = len(value.encode("utf-8", "replace"))
        if not outputs.is_key(name) or "\0" in value:
            yield Problem(
                where=f"params.{name}",
                message=f"{_quoted(name)} cannot be a param, or its value holds a NUL character",
                hint=outputs.KEY_RULE,
                code=BAD_PARAM,
            )
        elif size > OUTPUT_VALUE_BYTES:
            yield Problem(
                where=f"params.{name}",
                message=f"param {_named(name)} has {size} bytes, more than OUTPUT_VALUE_BYTES "
                f"({OUTPUT_VALUE_BYTES})",
                code=TOO_LARGE,
            )


def _job_problems(where: str, job: JobSpec) -> Iterator[Problem]:
    if job.kind is JobKind.UNKNOWN:
        yield Problem(
            where=f"{where}.kind",
            message=f"job {_named(job.id)} is of a kind that is not known here",
            hint="TASK, SERVICE or GATE",
            code=UNKNOWN_KIND,
        )
    for name, value, most, limit in (
        ("priority", job.priority, PRIORITY_MAX, "PRIORITY_MAX"),
        ("delay_ms", job.delay_ms, DELAY_MS, "DELAY_MS"),
        ("launch.at_ms", job.launch.at_ms, AT_MS, "AT_MS"),
        ("stop_grace_ms", job.stop_grace_ms, STOP_GRACE_MS, "STOP_GRACE_MS"),
        ("timeout_ms", job.timeout_ms, TIMEOUT_MS, "TIMEOUT_MS"),
        ("job_timeout_ms", job.job_timeout_ms, TIMEOUT_MS, "TIMEOUT_MS"),
    ):
        if not 0 <= value <= most:
            yield _out_of_range(f"{where}.{name}", name.rpartition(".")[2], value, most, limit)
    if job.needs.skills != _USUAL_SKILLS:
        yield from _skill_problems(f"{where}.needs.skills", job.needs.skills)
    if job.needs.slots != 1:
        least = 0 if job.kind is JobKind.SERVICE else 1
        if not least <= job.needs.slots <= WORKER_SLOTS:
            yield _out_of_range(
                f"{where}.needs.slots",
                "slots",
                job.needs.slots,
                WORKER_SLOTS,
                "WORKER_SLOTS",
                least,
            )
    if job.needs.terms is not None:
        yield from _terms_problems(f"{where}.needs.terms", job, job.needs.terms)
    if job.service is not None:
        yield from _service_problems(f"{where}.service", job, job.service)
    if job.retries != _USUAL_RETRIES:
        yield from _retry_problems(f"{where}.retries", job, job.retries)
    if job.kind is JobKind.GATE or job.gate is not None:
        yield from _gate_problems(where, job)
    else:
        yield from _launch_problems(f"{where}.launch", job.launch)
        if job.launch.kind is LaunchKind.HANDLER:
            yield from _handler_problems(where, job)
    if job.kind is JobKind.SERVICE and (job.timeout_ms or job.job_timeout_ms):
        yield Problem(
            where=f"{where}.timeout_ms",
            message=f"job {_named(job.id)} is a SERVICE, which is meant to stay up, and has a timeout",
            hint="take the timeout away, or make it a TASK",
            code=BAD_SERVICE,
        )
    yield from _size_problems(where, job)


def _shapes_problems(spec: RunSpec, index: Mapping[str, int]) -> Iterator[Problem]:
    """Each is a job's of this run, and makes sense for that job."""
    for name, shape in spec.shapes.items():
        number = index.get(name)
        if number is None:
            yield Problem(
                where="shapes",
                message=f"a trigger is said of {_quoted(name)}, which is not in this pipeline",
                code=BAD_SHAPE,
            )
        else:
            yield from _shape_problems(f"jobs[{number}].shape", spec.jobs[number], shape)


def _shape_problems(where: str, job: JobSpec, shape: Shape) -> Iterator[Problem]:
    if not all(map(outputs.is_key, shape.cell)) or _bytes_of(shape.cell.values()) > ARGS_BYTES:
        yield Problem(
            where=f"{where}.cell",
            message=f"the values of job {_named(job.id)} in its matrix are called otherwise than they "
            f"may be, or have more than ARGS_BYTES ({ARGS_BYTES}) bytes",
            hint=outputs.KEY_RULE,
            code=BAD_SHAPE,
        )
    if shape.trigger is Trigger.UNKNOWN:
        yield Problem(
            where=f"{where}.trigger",
            message=f"the trigger of job {_named(job.id)} is not known here",
            hint=f"any of {', '.join(one.value for one in Trigger if one is not Trigger.UNKNOWN)}",
            code=BAD_SHAPE,
        )
    elif shape.trigger is not Trigger.ALL_SUCCEEDED and not job.dependencies:
        yield Problem(
            where=f"{where}.trigger",
            message=f"job {_named(job.id)} has a trigger and depends on nothing",
            hint="a trigger is about the ends of its dependencies: name them, or take it away",
            code=BAD_SHAPE,
        )


def _out_of_range(
    where: str, what: str, value: int, most: int, limit: str, least: int = 0
) -> Problem:
    return Problem(
        where=where,
        message=f"{what} is {value}; it must be from {least} to {most} ({limit})",
        code=OUT_OF_RANGE,
    )


def _pace_problems(
    where: str,
    name: str,
    policy: RetryPolicy | RestartPolicy,
    own: tuple[tuple[str, int, str], ...],
) -> Iterator[Problem]:
    """Of how often and how fast something is tried again; `own` are the numbers that only it has."""
    for field, most, limit in (
        *own,
        ("delay_ms", RETRY_DELAY_MS, "RETRY_DELAY_MS"),
        ("max_delay_ms", RETRY_DELAY_MS, "RETRY_DELAY_MS"),
    ):
        value: int = getattr(policy, field)
        if not 0 <= value <= most:
            yield _out_of_range(f"{where}.{field}", f"{name}.{field}", value, most, limit)
    backoff = policy.backoff_percent
    if not BACKOFF_PERCENT_MIN <= backoff <= BACKOFF_PERCENT:
        yield _out_of_range(
            f"{where}.backoff_percent",
            f"{name}.backoff_percent",
            backoff,
            BACKOFF_PERCENT,
            "BACKOFF_PERCENT",
            BACKOFF_PERCENT_MIN,
        )


def _retry_problems(where: str, job: JobSpec, retries: RetryPolicy) -> Iterator[Problem]:
    if job.kind is not JobKind.TASK:
        yield Problem(
            where=where,
            message=f"job {_named(job.id)} is a {job.kind.value} and has retries; only a TASK has them",
            code=BAD_RETRY,
        )
    elif not retries.after_loss and (retries.limit or not job.exclusive):
        yield Problem(
            where=f"{where}.after_loss",
            message=f"job {_named(job.id)} is to be done at most once, and so is exclusive and has no "
            "retries",
            code=BAD_RETRY,
        )
    yield from _pace_problems(where, "retries", retries, (("limit", RETRIES, "RETRIES"),))
    if RetryCause.UNKNOWN in retries.causes or not retries.causes:
        yield Problem(
            where=f"{where}.causes",
            message="the causes after which to try again are not known here"
            if retries.causes
            else "there is no cause after which to try again",
            hint="any of EXIT, SIGNAL, TIMEOUT, START",
            code=BAD_RETRY,
        )
    for number, code in enumerate(retries.not_exit_codes):
        if not 1 <= code <= _EXIT_CODE_MAX:
            yield _out_of_range(
                f"{where}.not_exit_codes[{number}]",
                "an exit code of a failure",
                code,
                _EXIT_CODE_MAX,
                "what a process can end with",
                1,
            )


def _gate_problems(where: str, job: JobSpec) -> Iterator[Problem]:
    gate = job.gate or GateSection()
    if job.kind is not JobKind.GATE:
        yield Problem(
            where=f"{where}.gate",
            message=f"job {_named(job.id)} is a {job.kind.value} and has what only a GATE has",
            code=BAD_GATE,
        )
        return
    if (
        _but_for_its_moment(job.launch) != _NOTHING
        or job.service is not None
        or job.exclusive
        or job.timeout_ms
    ):
        yield Problem(
            where=f"{where}.launch",
            message=f"job {_named(job.id)} is a GATE, which runs nothing",
            hint="take its script, timeout, port and exclusive away",
            code=BAD_GATE,
        )
    if not 0 <= gate.timeout_ms <= TIMEOUT_MS:
        yield _out_of_range(
            f"{where}.gate.timeout_ms",
            "the gate's timeout_ms",
            gate.timeout_ms,
            TIMEOUT_MS,
            "TIMEOUT_MS",
        )
    if gate.on_timeout is GateExpiry.UNKNOWN:
        yield Problem(
            where=f"{where}.gate.on_timeout",
            message="what becomes of the gate in the end is not known here",
            hint="REJECT, APPROVE or FAIL",
            code=BAD_GATE,
        )
    if len(gate.message) > GATE_MESSAGE_CHARS:
        yield Problem(
            where=f"{where}.gate.message",
            message=f"a message of {len(gate.message)} characters is more than GATE_MESSAGE_CHARS "
            f"({GATE_MESSAGE_CHARS})",
            code=TOO_LARGE,
        )


def _but_for_its_moment(launch: Launch) -> Launch:
    return msgspec.structs.replace(launch, at_ms=0) if launch.at_ms else launch


def _skill_problems(where: str, skills: tuple[str, ...]) -> Iterator[Problem]:
    if len(skills) > SKILLS_PER_JOB:
        yield Problem(
            where=where,
            message=f"{len(skills)} skills are more than SKILLS_PER_JOB ({SKILLS_PER_JOB})",
            code=OUT_OF_RANGE,
        )
    for number, skill in enumerate(skills):
        if _SKILL.match(skill) is None:
            yield Problem(
                where=f"{where}[{number}]",
                message=f"{_quoted(skill)} cannot be a skill",
                hint=_SKILL_RULE,
                code=BAD_SKILL,
            )


def _terms_problems(where: str, job: JobSpec, terms: Terms) -> Iterator[Problem]:
    if job.kind is JobKind.GATE:
        yield Problem(
            where=where,
            message=f"job {_named(job.id)} is a GATE, which is placed nowhere, and says where",
            hint="take resources, affinity, worker, spread and concurrency away",
            code=BAD_GATE,
        )
    if len(terms.worker) > WORKER_NAME_CHARS or not terms.worker.isprintable():
        yield Problem(
            where=f"{where}.worker",
            message=f"{_quoted(terms.worker)} cannot be a worker's name",
            hint=f"HOST:PORT, HOST or an id; at most {WORKER_NAME_CHARS} characters "
            "(WORKER_NAME_CHARS)",
            code=BAD_PLACE,
        )
    if terms.required and not terms.near:
        yield Problem(
            where=where,
            message=f"job {_named(job.id)} requires to be beside a job, and does not say which",
            hint="affinity: {with: JOB, mode: require}",
            code=BAD_PLACE,
        )
    if terms.worker and (terms.required or terms.spread):
        other = "has to be beside another job" if terms.required else "is to be spread"
        yield Problem(
            where=f"{where}.worker",
            message=f"job {_named(job.id)} is tied to a worker and {other}",
            hint="keep one of the two",
            code=BAD_PLACE,
        )
    yield from _group_problems(where, "group", terms.group, terms.limit)
    yield from _group_problems(where, "run_group", terms.run_group, terms.run_limit)
    yield from _counted_problems(f"{where}.counted", terms.counted)


def _group_problems(where: str, field: str, group: str, limit: int) -> Iterator[Problem]:
    if len(group) > GROUP_CHARS or not group.isprintable():
        yield Problem(
            where=f"{where}.{field}",
            message=f"{_quoted(group)} cannot be the name of a concurrency group",
            hint=f"printable text of at most {GROUP_CHARS} characters (GROUP_CHARS)",
            code=BAD_PLACE,
        )
    if limit if not group else not 1 <= limit <= CONCURRENCY:
        most = CONCURRENCY if group else 0
        what = "concurrency.limit"
        yield _out_of_range(f"{where}.{field}", what, limit, most, "CONCURRENCY", min(1, most))


def _counted_problems(where: str, counted: tuple[Counted, ...]) -> Iterator[Problem]:
    if len(counted) > RESOURCES_PER_JOB:
        yield Problem(
            where=where,
            message=f"{len(counted)} resources are more than RESOURCES_PER_JOB ({RESOURCES_PER_JOB})",
            code=OUT_OF_RANGE,
        )
    seen: set[str] = set()
    for one in counted:
        rule = resource_name_fault(one.name)
        if rule:
            yield Problem(
                where=where,
                message=f"{_quoted(one.name)} cannot be a resource",
                hint=rule,
                code=BAD_RESOURCE,
            )
        if one.name in seen:
            yield Problem(
                where=where,
                message=f"resource {_named(one.name)} is asked for twice",
                code=BAD_RESOURCE,
            )
        seen.add(one.name)
        most, limit = _COUNTED_MOST.get(one.name, (RESOURCE_AMOUNT, "RESOURCE_AMOUNT"))
        if not 1 <= one.amount <= most:
            what = f"resources.{_named(one.name)}"
            yield _out_of_range(where, what, one.amount, most, limit, 1)


def _service_problems(where: str, job: JobSpec, service: ServiceSection) -> Iterator[Problem]:
    if job.kind is JobKind.TASK:
        yield Problem(
            where=where,
            message=f"job {_named(job.id)} is a TASK and has a port; only a SERVICE has one",
            code=BAD_SERVICE,
        )
    if not 0 <= service.port <= 65_535:
        yield Problem(
            where=f"{where}.port",
            message=f"port is {service.port}; it must be from 1 to 65535, or auto",
            code=OUT_OF_RANGE,
        )
    elif service.port and service.port_auto:
        yield Problem(
            where=f"{where}.port",
            message=f"port is both {service.port} and auto; it can be one of them",
            code=BAD_SERVICE,
        )
    if not 1 <= service.replicas <= REPLICAS:
        yield _out_of_range(
            f"{where}.replicas", "replicas", service.replicas, REPLICAS, "REPLICAS", 1
        )
    yield from _restart_problems(f"{where}.restart", service.restart)
    if service.health is not None:
        yield from _health_problems(f"{where}.health", job, service, service.health)


def _health_problems(
    where: str, job: JobSpec, service: ServiceSection, health: HealthCheck
) -> Iterator[Problem]:
    if health.kind is HealthKind.UNKNOWN:
        yield Problem(
            where=f"{where}.kind",
            message="this way to check a service is not known here",
            hint="HTTP, TCP or COMMAND",
            code=BAD_SERVICE,
        )
    for field, value, most, limit, least in (
        ("port", health.port, 65_535, "a port", 0),
        ("interval_ms", health.interval_ms, HEALTH_MS, "HEALTH_MS", HEALTH_INTERVAL_MS_MIN),
        ("timeout_ms", health.timeout_ms, HEALTH_MS, "HEALTH_MS", HEALTH_INTERVAL_MS_MIN),
        ("retries", health.retries, HEALTH_RETRIES, "HEALTH_RETRIES", 1),
        ("start_period_ms", health.start_period_ms, HEALTH_MS, "HEALTH_MS", 0),
    ):
        if not least <= value <= most:
            yield _out_of_range(
                f"{where}.{field}", f"healthcheck.{field}", value, most, limit, least
            )
    has_port = service.port or service.port_auto or health.port
    if health.kind in (HealthKind.HTTP, HealthKind.TCP) and not has_port:
        yield Problem(
            where=where,
            message=f"job {_named(job.id)} is to be checked at its port and has none",
            hint="give it a port, or the healthcheck one, or check it by a command",
            code=BAD_SERVICE,
        )
    if health.kind is HealthKind.HTTP and not _HTTP_PATH.match(health.path):
        yield Problem(
            where=f"{where}.path",
            message=f"healthcheck asks for {health.path[:80]!r}, which is no path",
            hint="such as /health",
            code=BAD_SERVICE,
        )
    if health.kind is HealthKind.COMMAND:
        yield from _check_command_problems(where, job, health)


def _check_command_problems(where: str, job: JobSpec, health: HealthCheck) -> Iterator[Problem]:
    size = sum(len(word.encode("utf-8", "replace")) + 1 for word in health.command)
    if not health.command or not health.command[0]:
        yield Problem(
            where=f"{where}.command",
            message=f"the healthcheck of job {_named(job.id)} has no command",
            code=BAD_SERVICE,
        )
    elif any("\0" in word for word in health.command) or size > HEALTH_COMMAND_BYTES:
        yield Problem(
            where=f"{where}.command",
            message=f"the command of the healthcheck holds a NUL character, or has {size} bytes, more "
            f"than HEALTH_COMMAND_BYTES ({HEALTH_COMMAND_BYTES})",
            code=BAD_SERVICE,
        )


def _restart_problems(where: str, restart: RestartPolicy) -> Iterator[Problem]:
    if restart.when is RestartWhen.UNKNOWN:
        yield Problem(
            where=f"{where}.when",
            message="this way to start a service again is not known here",
            hint="ALWAYS, ON_FAILURE or NEVER",
            code=BAD_SERVICE,
        )
    own = (("max", RESTARTS, "RESTARTS"), ("within_ms", RETRY_DELAY_MS, "RETRY_DELAY_MS"))
    yield from _pace_problems(where, "restart", restart, own)


def _launch_problems(where: str, launch: Launch) -> Iterator[Problem]:
    if launch.kind is LaunchKind.UNKNOWN:
        yield Problem(
            where=f"{where}.kind",
            message="the way to start this job is not known here",
            hint="SCRIPT, SHELL, COMMAND or HANDLER",
            code=UNKNOWN_KIND,
        )
    else:
        yield from _choice_problems(where, launch)
    if launch.script and not is_inside(launch.script):
        yield _bad_path(f"{where}.script", launch.script)
    if launch.command and not launch.command[0]:
        yield Problem(
            where=f"{where}.command[0]", message="the program to run has no name", code=BAD_LAUNCH
        )
    if launch.artifact is not None:
        yield from _artifact_problems(f"{where}.artifact", launch.artifact)
    if launch.python:
        yield from _python_problems(f"{where}.python", launch)
    if launch.resources is not None:
        yield from _resource_problems(f"{where}.resources", launch.resources)
    if launch.shell or launch.command or launch.args or launch.env:
        yield from _text_problems(where, launch)
    if launch.share is Share.UNKNOWN:
        yield Problem(
            where=f"{where}.share",
            message="this way to share files is not known here",
            hint="RUN or NODE",
            code=UNKNOWN_KIND,
        )
    if launch.artifacts is not None:
        yield from _pattern_problems(f"{where}.artifacts", launch.artifacts)


def _handler_problems(where: str, job: JobSpec) -> Iterator[Problem]:
    """A handler has a skill's name, and is looked for only where that skill is."""
    if job.launch.handler and job.launch.handler not in job.needs.skills:
        yield Problem(
            where=f"{where}.launch.handler",
            message=f"job {_named(job.id)} is for the handler {_quoted(job.launch.handler)} and does "
            "not need the skill of that name",
            hint="a worker has a handler's name among its skills",
            code=BAD_LAUNCH,
        )


def _pattern_problems(where: str, artifacts: Artifacts) -> Iterator[Problem]:
    """Paths and patterns lead to no place outside a working folder, and are not too many."""
    for name, wanted in (
        ("out", artifacts.out),
        ("take", tuple(take.files for take in artifacts.take)),
    ):
        if len(wanted) > ARTIFACT_PATTERNS:
            yield Problem(
                where=where,
                message=f"{len(wanted)} paths and patterns are more than ARTIFACT_PATTERNS "
                f"({ARTIFACT_PATTERNS})",
                hint="name a folder, or DIR/**",
                code=OUT_OF_RANGE,
            )
        for place, pattern in enumerate(wanted):
            if not is_inside(pattern.rstrip("/")):
                yield Problem(
                    where=f"{where}.{name}[{place}]",
                    message=f"{_quoted(pattern)} is no path or pattern inside a working folder",
                    hint="relative, with forward slashes, without '..'",
                    code=BAD_FILES,
                )


def _choice_problems(where: str, launch: Launch) -> Iterator[Problem]:
    """Exactly one of script, shell, command, handler is set: the one that `kind` names."""
    wanted = launch.kind.lower()
    for name, is_set in (
        ("script", launch.script),
        ("shell", launch.shell),
        ("command", launch.command),
        ("handler", launch.handler),
    ):
        if name == wanted and not is_set:
            yield Problem(
                where=f"{where}.{name}", message=f"the job's {name} is empty", code=BAD_LAUNCH
            )
        elif is_set and name != wanted:
            yield Problem(
                where=f"{where}.{name}",
                message=f"{name} is set beside {wanted}; a job has one of script, shell, "
                "command, handler",
                code=BAD_LAUNCH,
            )


def _python_problems(where: str, launch: Launch) -> Iterator[Problem]:
    if not is_python(launch.python):
        yield Problem(
            where=where,
            message=f"{_quoted(launch.python)} cannot be a Python",
            hint=PYTHON_RULE,
            code=BAD_PYTHON,
        )
    if launch.kind is not LaunchKind.SCRIPT or not takes_python(launch.script):
        yield Problem(
            where=where,
            message="python is set, and the job runs no .py script",
            hint="take python away, or name a script that ends in .py",
            code=BAD_PYTHON,
        )


def _resource_problems(where: str, resources: Resources) -> Iterator[Problem]:
    for name, least, most, limit in (
        ("cpu_milli", CPU_MILLI_MIN, CPU_MILLI, "CPU_MILLI"),
        ("memory_bytes", MEMORY_BYTES_MIN, MEMORY_BYTES, "MEMORY_BYTES"),
        ("pids", 1, PIDS, "PIDS"),
    ):
        value: int = getattr(resources, name)
        if value and not least <= value <= most:
            yield _out_of_range(f"{where}.{name}", f"resources.{name}", value, most, limit, least)


def _text_problems(where: str, launch: Launch) -> Iterator[Problem]:
    """What the operating system could not pass on to a process."""
    for name, texts in (
        ("shell", (launch.shell,)),
        ("command", launch.command),
        ("args", launch.args),
    ):
        if any("\0" in text for text in texts):
            yield Problem(
                where=f"{where}.{name}", message=f"{name} holds a NUL character", code=BAD_TEXT
            )
    arguments = _bytes_of((launch.shell, *launch.command, *launch.args))
    if arguments > ARGS_BYTES:
        yield Problem(
            where=f"{where}.args",
            message=f"arguments of {arguments} bytes are more than ARGS_BYTES ({ARGS_BYTES})",
            hint="put them into a file of the workspace",
            code=TOO_LARGE,
        )
    yield from environment_problems(f"{where}.env", launch.env)


def environment_problems(where: str, env: Mapping[str, str]) -> Iterator[Problem]:
    """What the operating system, or a limit, refuses of an environment."""
    if any("\0" in text for text in env.values()):
        yield Problem(where=where, message="env holds a NUL character", code=BAD_TEXT)
    for key in env:
        if not key or "=" in key or "\0" in key:
            yield Problem(
                where=where,
                message=f"{_quoted(key)} cannot be the name of an environment variable",
                hint="not empty, without '=' and NUL",
                code=BAD_ENV_NAME,
            )
    size = _bytes_of((*env, *env.values()))
    if size > ENV_BYTES:
        yield Problem(
            where=where,
            message=f"an environment of {size} bytes is more than ENV_BYTES ({ENV_BYTES})",
            hint="put it into a file of the workspace",
            code=TOO_LARGE,
        )


def _artifact_problems(where: str, artifact: ArtifactRef) -> Iterator[Problem]:
    if not is_digest(artifact.digest):
        yield Problem(
            where=f"{where}.digest",
            message=f"{_quoted(artifact.digest)} is no SHA-256 in lower-case hexadecimal",
            code=BAD_ARTIFACT,
        )
    size = artifact.size_bytes
    if not 0 <= size <= ARTIFACT_BYTES:
        yield _out_of_range(
            f"{where}.size_bytes", "size_bytes", size, ARTIFACT_BYTES, "ARTIFACT_BYTES"
        )
    if artifact.format is ArtifactFormat.UNKNOWN:
        yield Problem(
            where=f"{where}.format",
            message="the artifact's format is not known here",
            hint="ZIP or FILE",
            code=UNKNOWN_KIND,
        )
    if artifact.format is ArtifactFormat.FILE and not is_inside(artifact.name):
        yield _bad_path(f"{where}.name", artifact.name)


def _size_problems(where: str, job: JobSpec) -> Iterator[Problem]:
    try:
        size = len(_ENCODER.encode(job))
    except UnicodeEncodeError:
        yield Problem(
            where=where,
            message=f"job {_named(job.id)} holds text that is not valid Unicode",
            code=BAD_TEXT,
        )
        return
    if size > JOB_SPEC_BYTES:
        yield Problem(
            where=where,
            message=f"job {_named(job.id)} takes {size} bytes, more than JOB_SPEC_BYTES "
            f"({JOB_SPEC_BYTES})",
            code=TOO_LARGE,
        )


# -- the graph ------------------------------------------------------------------------------------


def _graph_problems(spec: RunSpec, index: dict[str, int]) -> Iterator[Problem]:
    jobs = spec.jobs
    parents: list[list[int]] = []
    near = _NearNames(index)
    for number, job in enumerate(jobs):
        known: list[int] = []
        parents.append(known)
        if not job.dependencies:
            continue
        where = f"jobs[{number}].dependencies"
        if len(job.dependencies) > DEPENDENCIES_PER_JOB:
            yield Problem(
                where=where,
                message=f"{len(job.dependencies)} dependencies are more than "
                f"DEPENDENCIES_PER_JOB ({DEPENDENCIES_PER_JOB})",
                code=OUT_OF_RANGE,
            )
        seen: set[str] = set()
        for place, name in enumerate(job.dependencies):
            if name in seen:
                yield Problem(
                    where=f"{where}[{place}]",
                    message=f"job {_named(job.id)} names its dependency {_quoted(name)} twice",
                    code=REPEATED_PARENT,
                )
                continue
            seen.add(name)
            parent = index.get(name)
            if parent is None:
                yield Problem(
                    where=f"{where}[{place}]",
                    message=f"job {_named(job.id)} depends on {_quoted(name)}, "
                    "which is not in this pipeline",
                    hint=near.hint(name),
                    code=UNKNOWN_PARENT,
                )
            else:
                known.append(parent)
    distant: list[tuple[int, int, Problem]] = []
    """(job, what it uses of another, what to say if that is not an ancestor): not direct parents."""
    yield from _expression_problems(spec, index, parents, near, distant)
    for name, shape in spec.shapes.items():
        if shape.when and name in index:
            yield from _when_problems(spec, index[name], shape.when, index, parents, near, distant)
    if distant:
        yield from _distant_problems(parents, distant)
    yield from _cycle_problems(jobs, parents)


def _unknown_expression(where: str, job: JobSpec, text: str, spec: RunSpec) -> Problem:
    """One that is of none of the forms, or was to be filled in before the run was submitted."""
    shape = spec.shapes.get(job.id)
    if outputs.EXPRESSION_OF["matrix"].fullmatch(text):
        keys = ", ".join(shape.cell) if shape is not None and shape.cell else ""
        return Problem(
            where=where,
            message=f"job {_named(job.id)} uses {_named(text)}, which its matrix has not"
            if keys
            else f"job {_named(job.id)} uses {_named(text)} and has no matrix",
            hint=f"it has {_named(keys)}" if keys else "",
            code=BAD_EXPRESSION,
        )
    if match := outputs.EXPRESSION_OF["params"].fullmatch(text):
        return Problem(
            where=where,
            message=f"job {_named(job.id)} uses {_named(text)}, and this pipeline has no such param",
            hint=_params_hint(spec, match["key"]),
            code=BAD_EXPRESSION,
        )
    return Problem(
        where=where,
        message=f"{_quoted(text)} is no expression that is known here",
        hint=outputs.FORM,
        code=BAD_EXPRESSION,
    )


def _params_hint(spec: RunSpec, name: str) -> str:
    near = difflib.get_close_matches(name, spec.params, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"it has {_named(', '.join(spec.params))}" if spec.params else "it has no params"


def _cells_hint(spec: RunSpec, name: str) -> str:
    """What to name instead of a job with a matrix, where one job is meant; empty for other jobs."""
    has_cells = any(shape.cell_of == name for shape in spec.shapes.values())
    return f"it has a matrix: name one of its cells, such as {_named(name)}.1" if has_cells else ""


def _expression_problems(
    spec: RunSpec,
    index: dict[str, int],
    parents: list[list[int]],
    near: _NearNames,
    distant: list[tuple[int, int, Problem]],
) -> Iterator[Problem]:
    """What a job says of others, beside its dependencies, is of jobs that come before it."""
    jobs = spec.jobs
    for number, job in enumerate(jobs):
        if job.needs.terms is not None and job.needs.terms.near:
            yield from _near_problems(jobs, number, index, parents, near, distant)
        if job.launch.artifacts is not None and job.launch.artifacts.take:
            yield from _intake_problems(jobs, number, index, parents, near, distant)
        if not outputs.is_used(job.launch):
            continue
        direct = set(parents[number])
        for use in outputs.uses(job.launch):
            where = f"jobs[{number}].launch.{use.field}"
            source = index.get(use.job)
            if not use.job:
                yield _unknown_expression(where, job, use.text, spec)
            elif source is None:
                yield Problem(
                    where=where,
                    message=f"job {_named(job.id)} uses an output of {_quoted(use.job)}, "
                    "which is not in this pipeline",
                    hint=_cells_hint(spec, use.job) or near.hint(use.job),
                    code=BAD_EXPRESSION,
                )
            elif jobs[source].kind is not JobKind.TASK:
                yield Problem(
                    where=where,
                    message=f"job {_named(job.id)} uses an output of {_named(use.job)}, which is a "
                    f"{jobs[source].kind.value}; only a TASK has outputs",
                    code=BAD_EXPRESSION,
                )
            elif source not in direct:
                refusal = Problem(
                    where=where,
                    message=f"job {_named(job.id)} uses an output of {_named(use.job)} and does not "
                    "depend on it",
                    hint=f"add {_named(use.job)} to its dependencies",
                    code=BAD_EXPRESSION,
                )
                distant.append((number, source, refusal))


def _when_problems(
    spec: RunSpec,
    number: int,
    when: str,
    index: dict[str, int],
    parents: list[list[int]],
    near: _NearNames,
    distant: list[tuple[int, int, Problem]],
) -> Iterator[Problem]:
    """A condition can be read, and what it reads is there once its turn has come."""
    job = spec.jobs[number]
    where = f"jobs[{number}].shape.when"
    try:
        tree = conditions.parse(when)
    except conditions.BadCondition as error:
        yield Problem(
            where=f"{where}[{error.at}]",
            message=f"when of job {_named(job.id)}: {error.message}",
            hint=error.hint,
            code=BAD_WHEN,
        )
        return
    direct = set(parents[number])
    for name in conditions.names(tree):
        place = f"{where}[{name.at}]"
        said = f"when of job {_named(job.id)} reads {_named(str(name))}"
        if name.source == "cell":
            cell = spec.shapes[job.id].cell
            if name.key not in cell:
                words = ", and its matrix has it not" if cell else ", and it has no matrix"
                hint = f"it has {_named(', '.join(cell))}" if cell else ""
                yield Problem(where=place, message=said + words, hint=hint, code=BAD_WHEN)
            continue
        if name.source == "param":
            if name.key not in spec.params:
                words = ", and this pipeline has no such param"
                hint = _params_hint(spec, name.key)
                yield Problem(where=place, message=said + words, hint=hint, code=BAD_WHEN)
            continue
        source = index.get(name.job)
        if source is None:
            yield Problem(
                where=place,
                message=f"{said}, and {_quoted(name.job)} is not in this pipeline",
                hint=_cells_hint(spec, name.job) or near.hint(name.job),
                code=BAD_WHEN,
            )
        elif name.source == "output" and spec.jobs[source].kind is not JobKind.TASK:
            yield Problem(
                where=place,
                message=f"{said}, and {_named(name.job)} is a {spec.jobs[source].kind.value}; only a "
                "TASK has outputs",
                code=BAD_WHEN,
            )
        elif source not in direct:
            refusal = Problem(
                where=place,
                message=f"{said} and does not depend on {_named(name.job)}",
                hint=f"add {_named(name.job)} to its dependencies",
                code=BAD_WHEN,
            )
            distant.append((number, source, refusal))


def _near_problems(
    jobs: tuple[JobSpec, ...],
    number: int,
    index: dict[str, int],
    parents: list[list[int]],
    near: _NearNames,
    distant: list[tuple[int, int, Problem]],
) -> Iterator[Problem]:
    """A job is to be beside one that comes before it, and that was somewhere."""
    job, terms = jobs[number], jobs[number].needs.terms
    name = "" if terms is None else terms.near
    where = f"jobs[{number}].needs.terms.near"
    source = index.get(name)
    if source is None:
        yield Problem(
            where=where,
            message=f"job {_named(job.id)} has an affinity to {_quoted(name)}, which is not in this "
            "pipeline",
            hint=near.hint(name),
            code=BAD_PLACE,
        )
    elif jobs[source].kind is JobKind.GATE:
        yield Problem(
            where=where,
            message=f"job {_named(job.id)} has an affinity to {_named(name)}, a GATE, which runs nowhere",
            hint="name a job before it",
            code=BAD_PLACE,
        )
    elif source not in parents[number]:
        refusal = Problem(
            where=where,
            message=f"job {_named(job.id)} has an affinity to {_named(name)}, which is no ancestor of it",
            hint=f"add {_named(name)} to its dependencies",
            code=BAD_PLACE,
        )
        distant.append((number, source, refusal))


def _intake_problems(
    jobs: tuple[JobSpec, ...],
    number: int,
    index: dict[str, int],
    parents: list[list[int]],
    near: _NearNames,
    distant: list[tuple[int, int, Problem]],
) -> Iterator[Problem]:
    """What a job takes in is handed out by a job that comes before it."""
    job = jobs[number]
    where = f"jobs[{number}].launch.artifacts"
    direct = set(parents[number])
    for take in job.launch.artifacts.take if job.launch.artifacts is not None else ():
        source = index.get(take.job)
        if source is None:
            yield Problem(
                where=where,
                message=f"job {_named(job.id)} takes in files of {_quoted(take.job)}, which is not in "
                "this pipeline",
                hint=near.hint(take.job),
                code=BAD_FILES,
            )
            continue
        handing = jobs[source].launch.artifacts
        if handing is None or not handing.out:
            yield Problem(
                where=where,
                message=f"job {_named(job.id)} takes in files of {_named(take.job)}, which hands out "
                "none",
                hint=f"give {_named(take.job)} an `artifacts: {{out: [...]}}`",
                code=BAD_FILES,
            )
        elif source not in direct:
            refusal = Problem(
                where=where,
                message=f"job {_named(job.id)} takes in files of {_named(take.job)} and does not "
                "depend on it",
                hint=f"add {_named(take.job)} to its dependencies",
                code=BAD_FILES,
            )
            distant.append((number, source, refusal))


def _distant_problems(
    parents: list[list[int]], distant: list[tuple[int, int, Problem]]
) -> Iterator[Problem]:
    """Of jobs used by others than their children: whether they are ancestors. One pass over the graph."""
    bit_of = {
        source: 1 << bit for bit, source in enumerate(dict.fromkeys(one[1] for one in distant))
    }
    if len(bit_of) > OUTPUTS_FROM_AFAR:
        yield Problem(
            where=distant[0][2].where,
            message=f"outputs, files and places of {len(bit_of)} jobs are used by jobs that do not name them as "
            f"dependencies, more than OUTPUTS_FROM_AFAR ({OUTPUTS_FROM_AFAR})",
            hint="name them as dependencies where they are used",
            code=OUT_OF_RANGE,
        )
        return
    above = _ancestors(parents, bit_of)
    for number, source, refusal in distant:
        if not above[number] & bit_of[source]:
            yield refusal


def _ancestors(parents: list[list[int]], bit_of: dict[int, int]) -> list[int]:
    """For each job the bits of those of its ancestors that have one; of a cycle's jobs, every bit."""
    children: list[list[int]] = [[] for _ in parents]
    waits = [0] * len(parents)
    for job, known in enumerate(parents):
        waits[job] = len(known)
        for parent in known:
            children[parent].append(job)
    above = [0] * len(parents)
    ready = [job for job, count in enumerate(waits) if not count]
    while ready:
        job = ready.pop()
        handed_on = above[job] | bit_of.get(job, 0)
        for child in children[job]:
            above[child] |= handed_on
            waits[child] -= 1
            if not waits[child]:
                ready.append(child)
    # Whoever waits in a circle hears of that, not of what is missing in it.
    return [-1 if waits[job] else found for job, found in enumerate(above)]


def _cycle_problems(jobs: tuple[JobSpec, ...], parents: list[list[int]]) -> Iterator[Problem]:
    stuck = _never_ready(parents)
    # Every stuck job has a stuck parent: going from one to the next ends in a cycle.
    step = {job: next(parent for parent in parents[job] if parent in stuck) for job in stuck}
    walk_of: dict[int, int] = {}
    for start in sorted(stuck):
        walk: list[int] = []
        here = start
        while here not in walk_of:
            walk_of[here] = start
            walk.append(here)
            here = step[here]
        if walk_of[here] != start or not walk:
            continue  # it leads to a cycle that is told already
        cycle = walk[walk.index(here) :]
        place = jobs[cycle[0]].dependencies.index(jobs[step[cycle[0]]].id)
        yield Problem(
            where=f"jobs[{cycle[0]}].dependencies[{place}]",
            message=f"these jobs wait for each other: {_path([jobs[job].id for job in cycle])}",
            hint="take one of these dependencies away",
            code=CYCLE,
        )


def _never_ready(parents: list[list[int]]) -> set[int]:
    """The jobs that would wait for ever: those of a cycle, and what comes after them."""
    children: list[list[int]] = [[] for _ in parents]
    waits = [0] * len(parents)
    for job, known in enumerate(parents):
        waits[job] = len(known)
        for parent in known:
            children[parent].append(job)
    ready = [job for job, count in enumerate(waits) if not count]
    while ready:
        for child in children[ready.pop()]:
            waits[child] -= 1
            if not waits[child]:
                ready.append(child)
    return {job for job, count in enumerate(waits) if count}


def _path(ids: list[str]) -> str:
    shown = [_named(name) for name in ids]
    if len(shown) > _CYCLE_SHOWN:
        half = _CYCLE_SHOWN // 2
        left_out = f"… {len(shown) - 2 * half} more …"
        shown = [*shown[:half], left_out, *shown[-half:]]
    return " → ".join([*shown, _named(ids[0])])


class _NearNames:
    """Did you mean …? For the first few unknown names, among names of about that length."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = names
        self._folded: dict[str, str] | None = None
        self._left = _HINTS_MAX

    def hint(self, name: str) -> str:
        if not self._left:
            return ""
        self._left -= 1
        if self._folded is None:
            self._folded = {known.casefold(): known for known in self._names}
        same = self._folded.get(name.casefold())
        if same is not None:
            return f"{_named(same)}?"
        candidates = [known for known in self._folded.values() if abs(len(known) - len(name)) <= 2][
            :_NEAR_NAMES
        ]
        near = difflib.get_close_matches(name[: 2 * _QUOTED_CHARS], candidates, n=1, cutoff=0.7)
        return f"{_named(near[0])}?" if near else ""


# -- words ----------------------------------------------------------------------------------------


def _bad_path(where: str, path: str) -> Problem:
    return Problem(
        where=where,
        message=f"{_quoted(path)} is no path inside the workspace",
        hint="relative, with '/', without '..'",
        code=BAD_PATH,
    )


def _bytes_of(texts: Iterable[str]) -> int:
    return sum(len(text.encode("utf-8", "surrogatepass")) + 1 for text in texts)


def _quoted(text: str) -> str:
    return f'"{_named(text)}"'


def _named(text: str) -> str:
    """`text` so that it can be printed anywhere, and not all of it if it is long."""
    short = text if len(text) <= _QUOTED_CHARS else text[: _QUOTED_CHARS - 1] + "…"
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in short
    )
