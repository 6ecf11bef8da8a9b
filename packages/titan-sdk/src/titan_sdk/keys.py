"""The keys of a job, once, for YAML and Python alike: what each takes, and what it becomes.

Decides the shape of single values and which keys exclude each other. Never looks at a whole graph
(`titan_proto.validation` does) and never at files. `jobs` and `pipeline` read through it, so that
a key means the same in both.
"""

from __future__ import annotations

import datetime
import difflib
import itertools
import math
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from titan_proto import conditions
from titan_proto.ids import JOB_ID_RULE, is_job_id
from titan_proto.limits import (
    AT_MS,
    BACKOFF_PERCENT,
    BACKOFF_PERCENT_MIN,
    CONCURRENCY,
    CPU_MILLI,
    CPU_MILLI_MIN,
    GATE_TIMEOUT_MS_DEFAULT,
    GROUP_CHARS,
    HEALTH_INTERVAL_MS_MIN,
    HEALTH_MS,
    HEALTH_RETRIES,
    MATRIX_CELLS,
    MEMORY_BYTES,
    MEMORY_BYTES_MIN,
    PIDS,
    PRIORITY_DEFAULT,
    PRIORITY_MAX,
    REPLICAS,
    RESOURCE_AMOUNT,
    RESOURCES_PER_JOB,
    RESTARTS,
    RETRIES,
    RETRY_DELAY_MS,
    STOP_GRACE_MS_DEFAULT,
    TIMEOUT_MS,
    WORKER_NAME_CHARS,
    WORKER_SLOTS,
)
from titan_proto.outputs import KEY_RULE, OPENING, is_key, tightened
from titan_proto.specs import (
    Artifacts,
    Counted,
    GateExpiry,
    GateSection,
    HealthCheck,
    HealthKind,
    Intake,
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
from titan_proto.validation import PYTHON_RULE, is_python, resource_name_fault, takes_python
from titan_sdk.scripts import names_a_folder

PORT_AUTO: Final = "auto"
DAG_PREFIX: Final = "DAG-"
"""The original, and the manual's screens, put it before the id of a job; ours are as they were written."""

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d{1,3})?)s)?(?:(\d+)ms)?\Z")
_ENV_NAME = re.compile(r"[^=\0]+\Z")
_TEXT_NUMBER = (int, float)
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)(?:([KMGT])(i?)B?|B)?\Z")
_POWERS: Final = {"K": 1, "M": 2, "G": 3, "T": 4}


class BadValue(Exception):
    """A value that its key does not take; `at` leads into it, for a list or a mapping."""

    def __init__(
        self, message: str, hint: str = "", at: tuple[int | str, ...] = (), offset: int = 0
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.at = at
        self.offset = offset
        """Characters of the text that stand before the place."""


class NotYet(BadValue):
    """Something that the design has and this version has not: never silently ignored."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not supported by this version of Titan")


def duration_ms(value: object) -> int:
    """`90s`, `5m`, `1h30m`, or a number of seconds, in milliseconds."""
    if isinstance(value, _TEXT_NUMBER) and not isinstance(value, bool):
        if not 0 <= value < 1e12:
            raise BadValue(f"{value} is no duration", "at least 0 seconds")
        return round(value * 1000)
    if isinstance(value, str):
        text = value.strip().replace(" ", "")
        if text.isascii() and re.fullmatch(r"\d{1,12}(\.\d{1,3})?", text):
            return round(float(text) * 1000)
        match = _DURATION.match(text)
        if match and match.group() and len(text) <= 40:
            days, hours, minutes, seconds, rest = (float(part or 0) for part in match.groups())
            whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
            return round(whole * 1000 + rest)
    raise BadValue(f"{_shown(value)} is no duration", "write 90s, 5m, 1h30m, or seconds")


def moment_ms(value: object) -> int:
    """A date and a time with its zone, in milliseconds since the epoch."""
    hint = "write 2026-12-01T08:30:00Z, or with an offset such as +01:00"
    given = value
    if isinstance(given, str):
        iso = given.strip()
        # Python 3.10 does not read the Z of RFC 3339.
        iso = iso[:-1] + "+00:00" if iso[-1:] in {"Z", "z"} else iso
        try:
            given = datetime.datetime.fromisoformat(iso)
        except ValueError:
            raise BadValue(f"{_shown(value)} is no point in time", hint) from None
    if not isinstance(given, datetime.datetime):
        raise BadValue(f"{_shown(value)} is no point in time", hint)
    if given.tzinfo is None:
        raise BadValue(f"{_shown(value)} does not say in which time zone", hint)
    at_ms = math.floor((given - _EPOCH) / _MILLISECOND)
    if not 0 < at_ms <= AT_MS:
        raise BadValue(f"{_shown(value)} lies before 1970")
    return at_ms


_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_MILLISECOND: Final = datetime.timedelta(milliseconds=1)


def text(value: object) -> str:
    """A text with something in it."""
    if not isinstance(value, str):
        raise BadValue(f"expected text, not {_shown(value)}")
    if not value.strip():
        raise BadValue("expected text, this is empty")
    if "\0" in value:
        raise BadValue("text with a NUL character in it")
    return value


def line(value: object) -> str:
    """What the shell is given."""
    return text(value)


def script(value: object) -> str:
    """The path of a file."""
    name = text(value)
    if names_a_folder(name):
        raise BadValue(f"{_shown(name)} names a folder", "the path of a file")
    return name


def python(value: object) -> str:
    """The interpreter of a Python script: a version, or an absolute path on the worker."""
    if isinstance(value, float) and str(value) in _PERHAPS_MORE:
        raise BadValue(f"{value} is also what {value}0 is as a number", f'write "{value}0" as text')
    if isinstance(value, _TEXT_NUMBER) and not isinstance(value, bool):
        value = str(value)
    name = text(value)
    if not is_python(name):
        raise BadValue(f"{_shown(name)} is no Python", PYTHON_RULE)
    return name


_PERHAPS_MORE: Final = ("3.1", "3.2")
"""Numbers of Python code that may have been written as 3.10 and 3.20; YAML keeps those as they are."""


def files(value: object) -> tuple[str, ...]:
    """The paths of files; one stands for a list of it alone."""
    if isinstance(value, (list, tuple)):
        return tuple(_each(value, _file))
    return (_file(value),)


def _file(value: object) -> str:
    return script(os.fspath(value) if isinstance(value, os.PathLike) else value)


def texts(value: object) -> tuple[str, ...]:
    """A list of texts; one text stands for a list of it alone."""
    if isinstance(value, str):
        return (text(value),)
    if not isinstance(value, (list, tuple)):
        raise BadValue(f"expected a list of texts, not {_shown(value)}")
    return tuple(_each(value, text))


def words(value: object) -> tuple[str, ...]:
    """Arguments: a list is taken exactly, a string is split like a shell does."""
    if isinstance(value, str):
        try:
            # An expression is one word, however it is written.
            return tuple(shlex.split(tightened(value)))
        except ValueError as error:
            raise BadValue(f"cannot be split into words: {error}", "or write a list") from error
    if isinstance(value, (list, tuple)):
        return tuple(_each(value, _word))
    if isinstance(value, _TEXT_NUMBER):
        return (_word(value),)
    raise BadValue(f"expected a list or a text, not {_shown(value)}")


def command(value: object) -> tuple[str, ...]:
    """A program and its arguments."""
    vector = words(value)
    if not vector or not vector[0]:
        raise BadValue("a command needs at least the name of a program")
    return vector


def environment(value: object) -> dict[str, str]:
    """Names and values; numbers and booleans become the text they were written as."""
    if not isinstance(value, Mapping):
        raise BadValue(f"expected names and values, not {_shown(value)}", "env: {NAME: value}")
    read: dict[str, str] = {}
    for name, given in value.items():
        if not isinstance(name, str) or not _ENV_NAME.match(name):
            raise BadValue(f"{_shown(name)} cannot name a variable", at=(str(name),))
        if given is None:
            raise BadValue(f"{name} has no value", 'write "" for an empty one', (name,))
        try:
            read[name] = _word(given)
        except BadValue as error:
            error.at = (name,)
            raise
    return read


def boolean(value: object) -> bool:
    """`true` or `false`, nothing that merely looks like it."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        raise NotYet("the object form of affinity")
    raise BadValue(f"expected true or false, not {_shown(value)}")


def flag(value: object) -> bool:
    """`true` or `false`."""
    if isinstance(value, bool):
        return value
    raise BadValue(f"expected true or false, not {_shown(value)}")


def timeout_ms(value: object) -> int:
    """A duration after which something is stopped; none is said by leaving the key out."""
    limit_ms = duration_ms(value)
    if not 0 < limit_ms <= TIMEOUT_MS:
        raise BadValue(
            f"{_shown(value)} is no timeout",
            f"more than 0, at most {TIMEOUT_MS // 86_400_000} days; without the key there is none",
        )
    return limit_ms


Keys = Mapping[str, tuple[str, Callable[[object], Any]]]
"""The keys of a long form: for each the field that it becomes, and its reader."""


def read_fields(owner: str, value: Mapping[Any, Any], keys: Keys) -> dict[str, Any]:
    """The fields that the long form of `owner` gives. BadValue says at which of its keys."""
    read: dict[str, Any] = {}
    for key, given in value.items():
        entry = keys.get(key) if isinstance(key, str) else None
        if entry is None:
            meant = nearest(str(key), keys)
            hint = f'did you mean "{meant}"?' if meant else f"one of {', '.join(keys)}"
            raise BadValue(f"{owner} has no {_shown(key)}", hint, (str(key),))
        field, reader = entry
        try:
            read[field] = reader(given)
        except BadValue as error:
            error.at = (key, *error.at)
            raise
    return read


def retries(value: object) -> RetryPolicy:
    """How often to try again, or the whole policy: limit, delay, backoff, and what not to retry."""
    if not isinstance(value, Mapping):
        return RetryPolicy(limit=_retry_limit(value))
    read = read_fields("retries", value, RETRY_KEYS)
    if "limit" not in read:
        raise BadValue("retries has no limit", "limit: 3 tries up to three times more")
    return RetryPolicy(**read)


def _retry_limit(value: object) -> int:
    return _whole(value, "how often to try again", 0, RETRIES, "RETRIES")


def _retry_delay_ms(value: object) -> int:
    delay_ms = duration_ms(value)
    if delay_ms > RETRY_DELAY_MS:
        raise BadValue(
            f"{_shown(value)} is too long", f"at most {RETRY_DELAY_MS // 3_600_000} hours"
        )
    return delay_ms


def _backoff_percent(value: object) -> int:
    """A factor: 2 doubles each delay, 1 keeps it."""
    low, high = BACKOFF_PERCENT_MIN / 100, BACKOFF_PERCENT / 100
    if isinstance(value, _TEXT_NUMBER) and not isinstance(value, bool) and low <= value <= high:
        return round(value * 100)
    raise BadValue(f"{_shown(value)} is no backoff", f"a factor from {low:g} to {high:g}")


CAUSES: Final = [cause.value.lower() for cause in RetryCause if cause is not RetryCause.UNKNOWN]
"""What `retries` may be limited to."""


def _causes(value: object) -> tuple[RetryCause, ...]:
    known = CAUSES

    def read(one: object) -> str:
        word = one.lower() if isinstance(one, str) else ""
        if word not in known:
            meant = nearest(word, known)
            hint = f'did you mean "{meant}"?' if meant else f"any of {', '.join(known)}"
            raise BadValue(f"{_shown(one)} is no cause of a failure", hint)
        return word

    given = [value] if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)) or not given:
        raise BadValue(
            f"expected a list of causes, not {_shown(value)}", f"any of {', '.join(known)}"
        )
    return tuple(RetryCause(word.upper()) for word in dict.fromkeys(_each(given, read)))


def _exit_codes(value: object) -> tuple[int, ...]:
    given = value if isinstance(value, (list, tuple)) else [value]
    codes = []
    for index, one in enumerate(given):
        try:
            codes.append(_whole(one, "an exit code of a failure", 1, 255, ""))
        except BadValue as error:
            error.at = (index,)
            raise
    return tuple(codes)


def _whole(value: object, what: str, least: int, most: int, limit: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    named = f" ({limit})" if limit else ""
    raise BadValue(f"{_shown(value)} is not {what}", f"a number from {least} to {most}{named}")


RETRY_KEYS: Final[Keys] = {
    "limit": ("limit", _retry_limit),
    "delay": ("delay_ms", _retry_delay_ms),
    "backoff": ("backoff_percent", _backoff_percent),
    "max_delay": ("max_delay_ms", _retry_delay_ms),
    "jitter": ("jitter", flag),
    "causes": ("causes", _causes),
    "not_exit_codes": ("not_exit_codes", _exit_codes),
}
"""The keys of the long form of `retries`, and the fields that they become."""


RESTARTS_WHEN: Final = {
    "always": RestartWhen.ALWAYS,
    "on-failure": RestartWhen.ON_FAILURE,
    "never": RestartWhen.NEVER,
}


def _restart_when(value: object) -> RestartWhen:
    word = value.lower() if isinstance(value, str) else ""
    if word in RESTARTS_WHEN:
        return RESTARTS_WHEN[word]
    meant = nearest(word, RESTARTS_WHEN)
    hint = f'did you mean "{meant}"?' if meant else ", ".join(RESTARTS_WHEN)
    raise BadValue(f"{_shown(value)} is no restart policy", hint)


def restart(value: object) -> RestartPolicy:
    """When a service is started again, or the whole budget: policy, max, within, delay, backoff."""
    if not isinstance(value, Mapping):
        return RestartPolicy(when=_restart_when(value))
    return RestartPolicy(**read_fields("restart", value, RESTART_KEYS))


def _restarts_max(value: object) -> int:
    return _whole(value, "how often to start it again", 0, RESTARTS, "RESTARTS")


RESTART_KEYS: Final[Keys] = {
    "policy": ("when", _restart_when),
    "max": ("max", _restarts_max),
    "within": ("within_ms", _retry_delay_ms),
    "delay": ("delay_ms", _retry_delay_ms),
    "backoff": ("backoff_percent", _backoff_percent),
    "max_delay": ("max_delay_ms", _retry_delay_ms),
}
"""The keys of the long form of `restart`, and the fields that they become."""


def healthcheck(value: object) -> HealthCheck:
    """A path that answers by HTTP, or the whole check: http, tcp or command, and how often."""
    if isinstance(value, str):
        return HealthCheck(kind=HealthKind.HTTP, path=_http_path(value))
    if not isinstance(value, Mapping):
        raise BadValue(f"{_shown(value)} is no health check", "such as /health, or {http: /health}")
    read = read_fields("healthcheck", value, HEALTH_KEYS)
    ways = [way for way in ("http", "tcp", "command") if way in value]
    if len(ways) != 1:
        said = (
            f"healthcheck has {' and '.join(ways)}" if ways else "healthcheck has no way to check"
        )
        raise BadValue(said, "exactly one of http, tcp and command")
    read["kind"] = HealthKind[ways[0].upper()]
    if ways == ["tcp"]:
        given = read.pop("tcp")
        if given:
            read["port"] = given
    return HealthCheck(**read)


def _http_path(value: object) -> str:
    path = text(value)
    if path.startswith("/") and path.isascii() and path.isprintable() and " " not in path:
        return path
    raise BadValue(f"{_shown(value)} is no path to ask for", "such as /health")


def _tcp_port(value: object) -> int:
    if value is True:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    raise BadValue(f"{_shown(value)} is no port to connect to", "true (its own), or a number")


def _check_command(value: object) -> tuple[str, ...]:
    words_of_it = words(value)
    if words_of_it:
        return words_of_it
    raise BadValue("the command of healthcheck is empty", "a program and its arguments")


def _health_ms(value: object) -> int:
    time_ms = duration_ms(value)
    if time_ms > HEALTH_MS:
        raise BadValue(f"{_shown(value)} is too long", f"at most {HEALTH_MS // 3_600_000} hours")
    return time_ms


def _health_pace_ms(value: object) -> int:
    time_ms = _health_ms(value)
    if time_ms < HEALTH_INTERVAL_MS_MIN:
        raise BadValue(
            f"{_shown(value)} is too short",
            f"at least {HEALTH_INTERVAL_MS_MIN} ms (HEALTH_INTERVAL_MS_MIN)",
        )
    return time_ms


def _health_retries(value: object) -> int:
    return _whole(value, "how often a check may fail", 1, HEALTH_RETRIES, "HEALTH_RETRIES")


HEALTH_KEYS: Final[Keys] = {
    "http": ("path", _http_path),
    "tcp": ("tcp", _tcp_port),
    "command": ("command", _check_command),
    "port": ("port", lambda value: int(_tcp_port(value))),
    "interval": ("interval_ms", _health_pace_ms),
    "timeout": ("timeout_ms", _health_pace_ms),
    "retries": ("retries", _health_retries),
    "start_period": ("start_period_ms", _health_ms),
}
"""The keys of the long form of `healthcheck`, and the fields that they become."""


def replicas(value: object) -> int:
    """How many instances of a service there are to be."""
    return _whole(value, "a number of instances", 1, REPLICAS, "REPLICAS")


def slots(value: object) -> int:
    """How much of a worker's room something takes."""
    return _whole(value, "a number of slots", 0, WORKER_SLOTS, "WORKER_SLOTS")


def _cpu_milli(value: object) -> int:
    """Cores: 0.5 is half of one."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,7}(\.\d{1,3})?", value, re.ASCII):
        value = float(value)
    if isinstance(value, _TEXT_NUMBER) and not isinstance(value, bool):
        milli = round(value * 1000) if 0 <= value <= CPU_MILLI else 0
        if CPU_MILLI_MIN <= milli <= CPU_MILLI:
            return milli
    raise BadValue(
        f"{_shown(value)} is no share of processors",
        f"cores, from {CPU_MILLI_MIN / 1000:g} to {CPU_MILLI // 1000} (CPU_MILLI)",
    )


def _memory_bytes(value: object) -> int:
    """`512MiB`, `2G`, or a number of bytes. K, M, G and T are powers of 1024 with an i, else of 1000."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and (match := _SIZE.match(value.strip())) and value.isascii():
        number, unit, binary = match.groups()
        size = round(float(number) * math.pow(1024 if binary else 1000, _POWERS.get(unit, 0)))
        if MEMORY_BYTES_MIN <= size <= MEMORY_BYTES:
            return size
    raise BadValue(
        f"{_shown(value)} is no amount of memory",
        f"512MiB, 2G or bytes; from {MEMORY_BYTES_MIN // 1024**2}MiB to "
        f"{MEMORY_BYTES // 1024**4}TiB (MEMORY_BYTES)",
    )


def _pids(value: object) -> int:
    return _whole(value, "how many processes it may have", 1, PIDS, "PIDS")


RESOURCE_KEYS: Final[Keys] = {
    "cpu": ("cpu_milli", _cpu_milli),
    "memory": ("memory_bytes", _memory_bytes),
    "pids": ("pids", _pids),
}


class Asked(NamedTuple):
    """What a job says of `resources`."""

    limits: Resources | None
    """What it may use at most ..."""
    counted: tuple[Counted, ...]
    """... and what it takes of its worker's."""


def resources(value: object) -> Asked:
    """What the job may use at most, and takes of its worker: cpu, memory, pids, gpu, any other name."""
    if not isinstance(value, Mapping):
        raise BadValue(
            f"expected limits, not {_shown(value)}", "resources: {cpu: 0.5, memory: 512MiB}"
        )
    if not value:
        raise BadValue("resources has no limit", f"any of {', '.join(RESOURCE_KEYS)}, gpu, …")
    limited = {key: amount for key, amount in value.items() if key in RESOURCE_KEYS}
    read = read_fields("resources", limited, RESOURCE_KEYS)
    counted = {
        key: read[field] for key, field in (("cpu", "cpu_milli"), ("memory", "memory_bytes"))
        if field in read
    }  # fmt: skip
    for key, amount in value.items():
        if key in RESOURCE_KEYS:
            continue
        try:
            taken = _units(key, amount)
        except BadValue as error:
            error.at = (str(key), *error.at)
            raise
        if taken:
            counted[key] = taken
    if len(counted) > RESOURCES_PER_JOB:
        raise BadValue(
            f"{len(counted)} resources", f"at most {RESOURCES_PER_JOB} (RESOURCES_PER_JOB)"
        )
    ordered = tuple(Counted(name=name, amount=counted[name]) for name in sorted(counted))
    return Asked(Resources(**read) if read else None, ordered)


def _misspelt(name: str) -> str:
    """Which of the names that have a meaning this is nearly; one as short as `tpu` may be its own."""
    lowered = name.lower()
    for known in (*RESOURCE_KEYS, "gpu"):
        is_cut = len(lowered) >= 3 and known.startswith(lowered)
        if name != known and (is_cut or lowered == f"{known}s"):
            return known
    close = difflib.get_close_matches(lowered, ("memory",), n=1, cutoff=0.8)
    return close[0] if close else ""


def _units(name: object, value: object) -> int:
    """Of a resource that is only counted: how much of it the job takes; 0 is as if it said nothing."""
    if not isinstance(name, str) or resource_name_fault(name):
        rule = resource_name_fault(str(name))
        raise BadValue(
            f"{_shown(name)} is no resource", f"{', '.join(RESOURCE_KEYS)}, gpu; or {rule}"
        )
    meant = _misspelt(name)
    if meant:
        raise BadValue(f"resources has no {_shown(name)}", f'did you mean "{meant}"?')
    return _whole(value, f"an amount of {name}", 0, RESOURCE_AMOUNT, "RESOURCE_AMOUNT")


class Near(NamedTuple):
    """What a job says of `affinity`, where that is more than yes or no."""

    job: str
    """Empty: its only dependency."""
    required: bool


def affinity(value: object) -> bool | Near:
    """True and false, or a mapping of with (a job before it) and mode (prefer, require)."""
    if not isinstance(value, Mapping):
        try:
            return boolean(value)
        except BadValue as error:
            error.hint = "true, false, or {with: JOB, mode: prefer | require}"
            raise
    read = read_fields("affinity", value, AFFINITY_KEYS)
    return Near(read.get("job", ""), read.get("required", False))


def _is_required(value: object) -> bool:
    if isinstance(value, str) and value in AFFINITY_MODES:
        return AFFINITY_MODES[value]
    meant = nearest(str(value), AFFINITY_MODES)
    raise BadValue(
        f"{_shown(value)} is no mode of affinity",
        f'did you mean "{meant}"?' if meant else "prefer or require",
    )


AFFINITY_MODES: Final = {"prefer": False, "require": True}
AFFINITY_KEYS: Final[Keys] = {"with": ("job", text), "mode": ("required", _is_required)}
"""The keys of the long form of `affinity`, and the fields that they become."""


class Concurrency(NamedTuple):
    """What a job, or a whole pipeline, says of `concurrency`."""

    group: str
    limit: int


def concurrency(value: object) -> Concurrency:
    """The name of a group of which one runs at a time, or a mapping of group and limit."""
    if not isinstance(value, Mapping):
        return Concurrency(_group(value), 1)
    read = read_fields("concurrency", value, CONCURRENCY_KEYS)
    if "group" not in read:
        raise BadValue("concurrency names no group", "concurrency: {group: NAME, limit: 2}")
    return Concurrency(read["group"], read.get("limit", 1))


def _group(value: object) -> str:
    name = _word(value)
    if not name.strip() or len(name) > GROUP_CHARS or not name.isprintable():
        raise BadValue(
            f"{_shown(value)} is no name of a group",
            f"printable text of at most {GROUP_CHARS} characters (GROUP_CHARS)",
        )
    return name


def _group_limit(value: object) -> int:
    return _whole(value, "how many may run at once", 1, CONCURRENCY, "CONCURRENCY")


def _on_conflict(value: object) -> str:
    if value in ("skip", "replace"):
        raise NotYet(f"on_conflict: {value}")
    if value != "queue":
        raise BadValue(f"{_shown(value)} is nothing to do on a conflict", "queue: it waits")
    return "queue"


CONCURRENCY_KEYS: Final[Keys] = {
    "group": ("group", _group),
    "limit": ("limit", _group_limit),
    "on_conflict": ("on_conflict", _on_conflict),
}
"""The keys of the long form of `concurrency`, and the fields that they become."""


def pin(value: object) -> str:
    """The worker that a job is for: HOST:PORT, a HOST, or an id."""
    name = text(value)
    if not name or len(name) > WORKER_NAME_CHARS or not name.isprintable():
        raise BadValue(
            f"{_shown(value)} is no worker's name",
            f"HOST:PORT, HOST or an id; at most {WORKER_NAME_CHARS} characters (WORKER_NAME_CHARS)",
        )
    return name


AT_LEAST_ONCE: Final = "at-least-once"
AT_MOST_ONCE: Final = "at-most-once"


def delivery(value: object) -> str:
    """`at-least-once` or `at-most-once`."""
    if value in (AT_LEAST_ONCE, AT_MOST_ONCE):
        return str(value)
    raise BadValue(f"{_shown(value)} is no delivery", f"{AT_LEAST_ONCE} or {AT_MOST_ONCE}")


def port(value: object) -> int | str:
    """A port's number, or `auto`."""
    if value == PORT_AUTO:
        return PORT_AUTO
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 5:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    raise BadValue(f"{_shown(value)} is no port", "a number from 1 to 65535, or auto")


def priority(value: object) -> int:
    """0 to 10, 10 first."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and 0 <= value <= PRIORITY_MAX:  # type: ignore[operator]  # an int, see the line above
        return value  # type: ignore[return-value]
    raise BadValue(f"{_shown(value)} is no priority", f"0 to {PRIORITY_MAX}, {PRIORITY_MAX} first")


def kind(value: object) -> JobKind:
    """TASK, SERVICE or APPROVAL, in any case; the original's `run` is a task."""
    word = value.upper() if isinstance(value, str) else ""
    if word in {"TASK", "RUN"}:
        return JobKind.TASK
    if word == "SERVICE":
        return JobKind.SERVICE
    if word in {"APPROVAL", "GATE"}:
        return JobKind.GATE
    raise BadValue(f"{_shown(value)} is no type of job", "TASK, SERVICE or APPROVAL")


def wait_ms(value: object) -> int:
    """How long a gate waits for somebody to decide."""
    limit_ms = duration_ms(value)
    if not 0 < limit_ms <= TIMEOUT_MS:
        raise BadValue(
            f"{_shown(value)} is no time to wait for a decision",
            f"more than 0, at most {TIMEOUT_MS // 86_400_000} days; "
            f"without the key it is {GATE_TIMEOUT_MS_DEFAULT // 3_600_000} hours",
        )
    return limit_ms


EXPIRIES: Final = ("reject", "approve", "fail")
"""What `on_timeout` of a gate takes."""


def expiry(value: object) -> GateExpiry:
    """What becomes of a gate about which nobody decided in time: `reject`, `approve` or `fail`."""
    for one in (GateExpiry.REJECT, GateExpiry.APPROVE, GateExpiry.FAIL):
        if isinstance(value, str) and value.upper() == one.value:
            return one
    raise BadValue(f"{_shown(value)} is no end of a gate", "reject, approve or fail")


APPROVAL_KEYS: Final[Keys] = {
    "message": ("message", text),
    "timeout": ("timeout_ms", wait_ms),
    "on_timeout": ("on_timeout", expiry),
}


def approval(value: object) -> GateSection:
    """The question to put to a person once the job has succeeded, or the whole gate behind it."""
    if not isinstance(value, Mapping):
        return GateSection(message=text(value))
    if "approvers" in value:
        raise NotYet("approvers")
    read = read_fields("approval", value, APPROVAL_KEYS)
    if "message" not in read:
        raise BadValue("approval has no message", "approval: {message: the question}")
    return GateSection(**read)


def job_id(value: object) -> str:
    """A name that is safe as a folder's name."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise BadValue(f"expected a job id, not {_shown(value)}", JOB_ID_RULE)
    if not is_job_id(value):
        raise BadValue(f"{_shown(value)} cannot be a job id", JOB_ID_RULE)
    return value


def dependencies(value: object) -> tuple[str, ...]:
    """Ids of jobs of the same run."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, (list, tuple)):
        raise BadValue(f"expected a list of job ids, not {_shown(value)}")
    return tuple(_each(value, _parent))


def _parent(value: object) -> str:
    if isinstance(value, Mapping):
        raise NotYet("a dependency with a condition")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(value)


def trigger(value: object) -> Trigger:
    """Which ends of its dependencies let a job begin."""
    word = value.lower() if isinstance(value, str) else ""
    if word in _TRIGGERS:
        return _TRIGGERS[word]
    meant = nearest(word, _TRIGGERS)
    hint = f'did you mean "{meant}"?' if meant else f"any of {', '.join(_TRIGGERS)}"
    raise BadValue(f"{_shown(value)} is no trigger", hint)


_TRIGGERS: Final = {one.value.lower(): one for one in Trigger if one is not Trigger.UNKNOWN}


def matrix(value: object) -> tuple[dict[str, str], ...]:
    """The cells of a matrix: every combination of its axes, in the order in which they are written."""
    if not isinstance(value, Mapping):
        raise BadValue(f"expected axes with their values, not {_shown(value)}", _MATRIX_FORM)
    axes: dict[str, list[str]] = {}
    for name, given in value.items():
        if name in MATRIX_LATER:
            error = NotYet(f"{name} of a matrix")
            error.at = (name,)
            raise error
        if name in MATRIX_LISTS:
            continue
        try:
            axes[_axis(name)] = _axis_values(given)
        except BadValue as error:
            error.at = (str(name), *error.at)
            raise
    if not axes:
        raise BadValue("a matrix has one axis at least", _MATRIX_FORM)
    excluded = _some_cells(value, "exclude", axes)
    included = _some_cells(value, "include", axes)
    count = math.prod(len(values) for values in axes.values()) + len(included)
    if count > MATRIX_CELLS:
        raise BadValue(f"a matrix of {count:,} cells", f"at most {MATRIX_CELLS:,} (MATRIX_CELLS)")
    cells = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    kept = [cell for cell in cells if not any(one.items() <= cell.items() for one in excluded)]
    for index, one in enumerate(included):
        missing = [name for name in axes if name not in one]
        if missing:
            message = f"this cell has no {missing[0]}"
            raise BadValue(message, "a value for each axis", ("include", index))
        if one not in kept:
            kept.append(one)
    if not kept:
        raise BadValue("no cell of this matrix is left", at=("exclude",))
    return tuple(kept)


_MATRIX_FORM: Final = "matrix: {region: [eu, us], size: [s, l]}"
MATRIX_LISTS: Final = ("exclude", "include")
MATRIX_LATER: Final = ("max_parallel", "fail_fast")


def _axis(name: object) -> str:
    if not isinstance(name, str) or not is_key(name):
        raise BadValue(f"{_shown(name)} cannot be an axis", KEY_RULE)
    return name


def _axis_values(given: object) -> list[str]:
    if not isinstance(given, (list, tuple)) or not given:
        raise BadValue(f"expected a list of values, not {_shown(given)}", _MATRIX_FORM)
    values = _each(given, _cell_value)
    for index, one in enumerate(values):
        if one in values[:index]:
            raise BadValue(f"{_shown(one)} is there twice", at=(index,))
    return values


def _cell_value(value: object) -> str:
    one = _word(value)
    if OPENING in one:
        raise BadValue(f"{_shown(one)} has {OPENING} in it", "it would be read as an expression")
    return one


def _some_cells(
    value: Mapping[Any, Any], key: str, axes: Mapping[str, list[str]]
) -> list[dict[str, str]]:
    """The cells that `include` or `exclude` names, each by values of axes."""
    given = value.get(key, [])
    if not isinstance(given, (list, tuple)):
        raise BadValue(f"expected a list of cells, not {_shown(given)}", "[{region: us}]", (key,))
    found: list[dict[str, str]] = []
    for index, one in enumerate(given):
        if not isinstance(one, Mapping) or not one:
            hint = "such as {region: us, size: l}"
            raise BadValue(f"expected a cell, not {_shown(one)}", hint, (key, index))
        cell: dict[str, str] = {}
        for name, item in one.items():
            if name not in axes:
                meant = nearest(str(name), axes)
                hint = f'did you mean "{meant}"?' if meant else f"it has {', '.join(axes)}"
                message = f"{_shown(name)} is no axis of this matrix"
                raise BadValue(message, hint, (key, index, str(name)))
            try:
                cell[name] = _cell_value(item)
            except BadValue as error:
                error.at = (key, index, name)
                raise
        if key == "exclude" and not all(item in axes[name] for name, item in cell.items()):
            raise BadValue("no cell is like this one", at=(key, index))
        found.append(cell)
    return found


def when(value: object) -> str:
    """A condition; what it reads is asked of the whole run."""
    if not isinstance(value, str):
        raise BadValue(f"expected a condition, not {_shown(value)}", conditions.FORM)
    condition = text(value)
    try:
        conditions.parse(condition)
    except conditions.BadCondition as error:
        raise BadValue(error.message, error.hint, offset=error.at) from error
    return condition


def share(value: object) -> Share:
    """Who is given what the job leaves in the run's shared folder."""
    name = text(value)
    if name not in SHARES:
        raise BadValue(f"{_shown(name)} is no way to share", " or ".join(SHARES))
    return SHARES[name]


SHARES: Final = {"run": Share.RUN, "node": Share.NODE}


def artifacts(value: object) -> Artifacts:
    """The files that the job hands out, and those that it takes in from others."""
    if not isinstance(value, Mapping):
        raise BadValue(f"expected a mapping, not {_shown(value)}", _ARTIFACTS_FORM)
    out: tuple[str, ...] = ()
    take: list[Intake] = []
    for key, given in value.items():
        try:
            if key == "out":
                out = texts(given)
            elif key == "in":
                take = _intakes(given)
            else:
                hint = nearest(named(key), ("out", "in"))
                raise BadValue(f"{_shown(key)} is no key of it", hint or _ARTIFACTS_FORM)
        except BadValue as error:
            error.at = (key, *error.at)
            raise
    return Artifacts(out=out, take=tuple(take))


_ARTIFACTS_FORM: Final = '{out: [PATTERN, ...], in: ["JOB:PATTERN", ...]}'


def _intakes(value: object) -> list[Intake]:
    taken: list[Intake] = []
    for index, entry in enumerate(texts(value)):
        job, colon, pattern = entry.partition(":")
        if not colon or not job or not pattern:
            error = BadValue(
                f"{_shown(entry)} says not what it takes in from which job", "JOB:PATTERN"
            )
            error.at = (index,) if isinstance(value, (list, tuple)) else ()
            raise error
        taken.append(Intake(job=job, files=pattern))
    return taken


READERS: Final[dict[str, Callable[[object], Any]]] = {
    "id": job_id,
    "script": script,
    "run": line,
    "command": command,
    "handler": text,
    "python": python,
    "args": words,
    "env": environment,
    "env_file": files,
    "dependencies": dependencies,
    "type": kind,
    "port": port,
    "restart": restart,
    "healthcheck": healthcheck,
    "replicas": replicas,
    "requirement": texts,
    "skills": texts,
    "slots": slots,
    "priority": priority,
    "at": moment_ms,
    "delay": duration_ms,
    "affinity": affinity,
    "worker": pin,
    "spread": flag,
    "concurrency": concurrency,
    "stop_grace": duration_ms,
    "retries": retries,
    "timeout": timeout_ms,
    "job_timeout": timeout_ms,
    "resources": resources,
    "exclusive": flag,
    "delivery": delivery,
    "approval": approval,
    "max_wait_seconds": wait_ms,
    "message": text,
    "on_timeout": expiry,
    "share": share,
    "artifacts": artifacts,
    "trigger": trigger,
    "when": when,
    "matrix": matrix,
}
"""Every key that a job takes, in YAML as in `TitanJob`."""

ALIASES: Final[dict[str, str]] = {
    "file": "script",
    "filename": "script",
    "depends_on": "dependencies",
    "needs": "dependencies",
    "hitl_message": "approval",
}

LATER: Final = frozenset(
    {
        "approvers", "on_end", "outputs",
        "reschedule", "secrets",
    }
)  # fmt: skip
"""Keys that are designed and not built. They are refused by name, because a job that silently ran
without what its author counts on would be worse than one that does not run."""

FOR_SERVICES: Final = (
    ("port", "a port", 'type: "SERVICE"'),
    ("restart", "restart", "a task has retries"),
    ("healthcheck", "a healthcheck", 'type: "SERVICE"'),
    ("replicas", "replicas", 'type: "SERVICE"'),
)
"""Keys that mean nothing where a job ends by itself: the key, what it gives, what to do."""
FOR_TASKS: Final = ("retries", "timeout", "job_timeout", "delivery")
"""Keys that mean nothing where a job is meant to stay up."""


WAYS: Final = ("script", "run", "command", "handler")
"""What a job may execute: exactly one of these."""

FOR_GATES: Final = (
    "id", "type", "dependencies", "trigger", "when", "at", "delay", "message", "timeout", "on_timeout",
)  # fmt: skip
"""All that a gate takes: it runs nothing, anywhere."""


def conflicts(read: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Keys of one job that do not go together: (the key to point at, message, hint)."""
    if read.get("type") is JobKind.GATE:
        hint = f"a gate runs nothing; it takes {', '.join(FOR_GATES[2:])}"
        return [(key, f"is a gate and has {key}", hint) for key in read if key not in FOR_GATES]
    found: list[tuple[str, str, str]] = []
    ways = [key for key in WAYS if key in read]
    if not ways:
        hint = "give it a script, a run line, a command or a handler"
        found.append(("id", "has nothing to execute", hint))
    if len(ways) > 1:
        found.append((ways[1], f"has {' and '.join(ways)}", "exactly one of them"))
    if "run" in read and read.get("args"):
        found.append(("args", "has args beside run", "write them into the line itself"))
    # A script that could not be read is wrong already, whatever its name ends in.
    named_script = read.get("script", "")
    if "python" in read and ways and named_script is not None and not takes_python(named_script):
        found.append(
            ("python", "has python and no .py script", "only a .py script is given to one")
        )
    if read.get("type", JobKind.TASK) is JobKind.TASK:
        found += [
            (key, f"has {what} but is no service", hint)
            for key, what, hint in FOR_SERVICES
            if key in read
        ]
        if read.get("slots") == 0:
            found.append(("slots", "takes no slot and is no service", "a task takes at least 1"))
    if read.get("type", JobKind.TASK) is JobKind.SERVICE:
        found += [
            (
                key,
                f"is a service and has {key}",
                "a service is meant to stay up; only a task has it",
            )
            for key in FOR_TASKS
            if key in read
        ]
    if read.get("delivery") == AT_MOST_ONCE:
        retried = read.get("retries")
        if retried is not None and retried.limit:
            found.append(
                ("retries", "is to be done at most once and has retries", "leave them out")
            )
        if read.get("exclusive") is False:
            found.append(
                ("exclusive", "is to be done at most once, and so is exclusive", "leave it out")
            )
    found += _approval_conflicts(read)
    near = read.get("affinity")
    if isinstance(near, Near) and not near.job and len(read.get("dependencies") or ()) != 1:
        hint = "affinity: {with: JOB}"
        found.append(("affinity", "has an affinity and does not say with which job", hint))
    if "requirement" in read and "skills" in read:
        found.append(("requirement", "has requirement and skills", "keep skills"))
    return found


def _approval_conflicts(read: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    found = [
        (key, f"has {key} and is no gate", f'type: "APPROVAL", or approval: {{{key}: …}}')
        for key in ("message", "on_timeout")
        if key in read
    ]
    if "max_wait_seconds" in read:
        if "approval" not in read:
            hint = 'approval: "the question"'
            found.append(("max_wait_seconds", "has max_wait_seconds and no approval", hint))
        elif read["approval"] and read["approval"].timeout_ms != GATE_TIMEOUT_MS_DEFAULT:
            hint = "keep the timeout of approval"
            found.append(("max_wait_seconds", "says twice how long its approval may take", hint))
    return found


def approval_of(read: Mapping[str, Any]) -> GateSection | None:
    """The gate that the job wants behind it."""
    section: GateSection | None = read.get("approval")
    if section is not None and "max_wait_seconds" in read:
        return replace(section, timeout_ms=read["max_wait_seconds"])
    return section


def job_spec(read: Mapping[str, Any]) -> JobSpec:
    """The spec that values read by `READERS` amount to; conflicts were looked for before."""
    at_most_once = read.get("delivery") == AT_MOST_ONCE
    if read.get("type") is JobKind.GATE:
        return JobSpec(
            id=read["id"],
            launch=Launch(at_ms=read.get("at", 0)),
            kind=JobKind.GATE,
            dependencies=read.get("dependencies", ()),
            delay_ms=read.get("delay", 0),
            gate=GateSection(
                message=read.get("message", ""),
                timeout_ms=read.get("timeout", GATE_TIMEOUT_MS_DEFAULT),
                on_timeout=read.get("on_timeout", GateExpiry.REJECT),
            ),
        )
    return JobSpec(
        id=read["id"],
        launch=_launch(read),
        kind=read.get("type", JobKind.TASK),
        dependencies=read.get("dependencies", ()),
        needs=_needs(read),
        priority=read.get("priority", PRIORITY_DEFAULT),
        delay_ms=read.get("delay", 0),
        affinity=read.get("affinity", False) is True,
        stop_grace_ms=read.get("stop_grace", STOP_GRACE_MS_DEFAULT),
        service=_service(read),
        retries=_NEVER_AGAIN if at_most_once else read.get("retries", _NO_RETRIES),
        timeout_ms=read.get("timeout", 0),
        job_timeout_ms=read.get("job_timeout", 0),
        exclusive=read.get("exclusive", False) or at_most_once,
    )


def shape_of(read: Mapping[str, Any]) -> Shape | None:
    """What the job's run is told of it beside its spec; None where that is nothing unusual."""
    shape = Shape(trigger=read.get("trigger", Trigger.ALL_SUCCEEDED), when=read.get("when", ""))
    return None if shape == _USUAL_SHAPE else shape


_GENERAL: Final = Needs()
_USUAL_SHAPE: Final = Shape()
_NO_TERMS: Final = Terms()
_NO_GROUP: Final = Concurrency("", 0)
RUN_CONCURRENCY: Final = "concurrency of the run"
"""Under this, beside its own keys, a job is told what its pipeline says of `concurrency`."""
_USUAL_RESTART: Final = RestartPolicy()
_NO_RETRIES: Final = RetryPolicy()
_NEVER_AGAIN: Final = RetryPolicy(after_loss=False)


def _needs(read: Mapping[str, Any]) -> Needs:
    usual = (read["handler"],) if "handler" in read else _GENERAL.skills
    skills = read.get("skills", read.get("requirement", usual))
    if "handler" in read:
        skills = tuple(dict.fromkeys((*skills, read["handler"])))
    found = Needs(skills=skills, slots=read.get("slots", 1), terms=_terms(read))
    return _GENERAL if found == _GENERAL else found


def _terms(read: Mapping[str, Any]) -> Terms | None:
    near = read.get("affinity")
    group: Concurrency = read.get("concurrency", _NO_GROUP)
    run_group: Concurrency = read.get(RUN_CONCURRENCY, _NO_GROUP)
    beside = ""
    if isinstance(near, Near):
        beside = near.job or (read.get("dependencies") or ("",))[0]
    terms = Terms(
        counted=read["resources"].counted if "resources" in read else (),
        worker=read.get("worker", ""),
        near=beside,
        required=bool(beside) and isinstance(near, Near) and near.required,
        spread=read.get("spread", False),
        group=group.group,
        limit=group.limit,
        run_group=run_group.group,
        run_limit=run_group.limit,
    )
    return None if terms == _NO_TERMS else terms


def in_group_of_runs(spec: RunSpec, given: Concurrency) -> RunSpec:
    """The run with all its jobs in that group of runs."""
    jobs = []
    for job in spec.jobs:
        if job.kind is not JobKind.GATE:
            terms = job.needs.terms or _NO_TERMS
            terms = replace(terms, run_group=given.group, run_limit=given.limit)
            job = replace(job, needs=replace(job.needs, terms=terms))  # noqa: PLW2901
        jobs.append(job)
    return replace(spec, jobs=tuple(jobs))


def _launch(read: Mapping[str, Any]) -> Launch:
    made = _program(read)
    if "share" in read or "artifacts" in read:
        made = replace(made, share=read.get("share", Share.RUN), artifacts=read.get("artifacts"))
    if "at" in read:
        made = replace(made, at_ms=read["at"])
    return made


def _program(read: Mapping[str, Any]) -> Launch:
    name: str
    env: dict[str, str] = read.get("env", {})
    args: tuple[str, ...] = read.get("args", ())
    limits = read["resources"].limits if "resources" in read else None
    if "run" in read:
        return Launch(kind=LaunchKind.SHELL, shell=read["run"], env=env, resources=limits)
    if "command" in read:
        vector = (*read["command"], *args)
        return Launch(kind=LaunchKind.COMMAND, command=vector, env=env, resources=limits)
    if "handler" in read:
        name = read["handler"]
        return Launch(kind=LaunchKind.HANDLER, handler=name, args=args, env=env, resources=limits)
    name = read.get("script", "")
    # What `defaults` say is for those scripts that it can mean something to.
    interpreter = read.get("python", "") if takes_python(name) else ""
    return Launch(script=name, args=args, env=env, python=interpreter, resources=limits)


def _service(read: Mapping[str, Any]) -> ServiceSection | None:
    if read.get("type") is not JobKind.SERVICE:
        return None
    given = read.get("port", 0)
    is_auto = given == PORT_AUTO
    return ServiceSection(
        port=0 if is_auto else given,
        port_auto=is_auto,
        restart=read.get("restart", _USUAL_RESTART),
        health=read.get("healthcheck"),
        replicas=read.get("replicas", 1),
    )


def scalar(value: object) -> str:
    """A text, a number or a boolean, as the text it was written as."""
    return _word(value)


def quoted(value: object) -> str:
    """A value as an error quotes it."""
    return _shown(value)


def nearest(word: str, known: Iterable[str]) -> str:
    """What somebody who wrote `word` most likely meant; empty if nothing is near."""
    lowered = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[close[0]] if close else ""


def _each(values: list[object] | tuple[object, ...], read: Callable[[object], str]) -> list[str]:
    done: list[str] = []
    for index, value in enumerate(values):
        try:
            done.append(read(value))
        except BadValue as error:
            error.at = (index, *error.at)
            raise
    return done


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _TEXT_NUMBER):
        return str(value)
    if not isinstance(value, str):
        raise BadValue(f"expected text, not {_shown(value)}")
    if "\0" in value:
        raise BadValue("text with a NUL character in it")
    return value


def _shown(value: object) -> str:
    """A value as an error quotes it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, str):
        return f'"{named(value)}"'
    return str(value)[:60]


def named(name: object) -> str:
    """A name as an error says it: on one line, what cannot be printed escaped, not all if long."""
    whole = str(name)
    short = whole if len(whole) <= 60 else whole[:57] + "..."
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in short)
