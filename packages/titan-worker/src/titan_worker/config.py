"""What a worker is told when it starts: flags over environment over defaults, checked once.

Called by ``cli``; everything after it trusts these values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct, field

from titan_proto.durations import BadDuration, parse_duration
from titan_proto.io.address import Address, BadAddress, find_master, parse_address
from titan_proto.limits import (
    CPU_MILLI,
    DEFAULT_WORKER_PORT,
    DRAIN_TIMEOUT_MS,
    DRAIN_TIMEOUT_MS_DEFAULT,
    RESOURCE_AMOUNT,
    RESOURCES_PER_WORKER,
    WORKER_SLOTS,
    WORKER_SLOTS_DEFAULT,
)
from titan_proto.specs import JobSpec, Launch, Needs, RunSpec
from titan_proto.validation import BAD_SKILL, problems, resource_name_fault

CACHE_BYTES: Final = 2 * 1024 * 1024 * 1024
"""Unpacked artifacts that are kept."""
CACHE_KEEP_MS: Final = 7 * 24 * 3600 * 1000
"""How long one is kept that nothing uses."""
KEEP_MS: Final = 24 * 3600 * 1000
KEEP_MS_MAX: Final = 366 * 24 * 3600 * 1000
WORKSPACE_BYTES_KEPT: Final = 10 * 1024 * 1024 * 1024
_SIZE = re.compile(r"(\d+)\s*(KiB|MiB|GiB|TiB)\Z")
_SIZES: Final = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_CORES: Final = re.compile(r"\d{1,4}(\.\d{1,3})?\Z", re.ASCII)
_SIZE_MAX: Final = 1024**5
SKILLS_DEFAULT: Final = ("GENERAL",)
INTERPRETED: Final = (".py", ".sh", ".jar")
"""Handlers that are started with a program of their own: they need no execute bit."""
CGROUPS: Final = ("asked", "all", "off")
"""Services and those that ask for resources, every one, none."""
_PORT_MAX: Final = 65_535


SIBLING: Final = "TITAN_SIBLING"
"""Environment variable of a worker that another one has spawned: number, proof, patience, by whom."""
SPAWNER_DEFAULT: Final = "local"
SPAWNER_OFF: Final = "off"


class Birth(Struct, frozen=True, kw_only=True):
    """Of a worker that another one has spawned."""

    number: int
    proof: str
    join_within_ms: int


class ConfigError(Exception):
    """The command line asks for something that cannot be; the text says what would."""


class Settings(Struct, frozen=True, kw_only=True):
    """One worker's configuration."""

    port: int
    """Part of the worker's name; nothing listens on it."""
    master: Address
    slots: int
    skills: tuple[str, ...]
    """With the names of its handlers."""
    resources: dict[str, int]
    """What was said of what jobs can take; `cpu` and `memory` that are not there are looked up."""
    data: Path
    cache_bytes: int
    drain_ms: int
    """How long running tasks may go on once it is told to leave."""
    cgroups: str
    """Which attempts get a control group, one of ``CGROUPS``."""
    keep_ms: int = KEEP_MS
    """How long folders stay after the end of their attempt, and shared ones after that of the run."""
    workspace_bytes: int = WORKSPACE_BYTES_KEPT
    """Above it those go earlier that ended first."""
    cache_keep_ms: int = CACHE_KEEP_MS
    spawner: str = SPAWNER_DEFAULT
    """How it starts other workers when the master asks for them: `local`, `off`, or a command."""
    birth: Birth | None = None
    handlers: dict[str, str] = field(default_factory=dict)
    """Programs that jobs may ask for by name, as absolute paths."""

    @property
    def private(self) -> Path:
        """What belongs to this worker alone: ledger, lock, cache."""
        return self.data / f".worker-{self.port}"

    @property
    def workspace(self) -> Path:
        """Where jobs run; workers on other ports may share it."""
        return self.data / "titan_workspace"


def make_settings(
    *,
    port: int | None,
    master_host: str | None,
    master_port: int | None,
    port_flag: int | None,
    master_flag: str | None,
    slots: int | None,
    skills: tuple[str, ...],
    handlers: tuple[str, ...],
    resources: tuple[str, ...],
    data: Path,
    drain_timeout: str | None,
    cgroups: str,
    keep: str | None,
    keep_bytes: str | None,
    cache_bytes: str | None,
    spawner: str | None,
    environ: Mapping[str, str],
    cwd: Path,
) -> Settings:
    """The settings that a command line and an environment come to. Raises ConfigError."""
    if port is not None and port_flag is not None and port != port_flag:
        raise ConfigError(f"PORT is given twice: {port} and --port {port_flag}")
    if master_host is not None and master_flag is not None:
        raise ConfigError("the master is given twice: MASTER_HOST and --master")
    chosen = next((p for p in (port, port_flag) if p is not None), DEFAULT_WORKER_PORT)
    if not 1 <= chosen <= _PORT_MAX:
        raise ConfigError(f"PORT is {chosen}, expected 1 to {_PORT_MAX}")
    count = WORKER_SLOTS_DEFAULT if slots is None else slots
    if not 1 <= count <= WORKER_SLOTS:
        raise ConfigError(f"--slots is {count}, expected 1 to {WORKER_SLOTS}")
    for skill in skills:
        rule = _broken_rule(skill)
        if rule:
            raise ConfigError(f"--skill {skill!r}: expected {rule}")
    programs = _handlers(handlers, cwd)
    return Settings(
        port=chosen,
        master=_master(master_host, master_port, master_flag, environ, cwd),
        slots=count,
        skills=tuple(dict.fromkeys((*(skills or SKILLS_DEFAULT), *programs))),
        handlers=programs,
        resources=_resources(resources),
        data=(cwd / data).resolve(),
        cache_bytes=_bytes("--cache-bytes", cache_bytes, CACHE_BYTES),
        drain_ms=_drain_ms(drain_timeout),
        cgroups=cgroups,
        keep_ms=_keep_ms(keep),
        workspace_bytes=_bytes("--keep-bytes", keep_bytes, WORKSPACE_BYTES_KEPT),
        spawner=_spawner(spawner),
        birth=_birth(environ.get(SIBLING, "")),
    )


def _spawner(text: str | None) -> str:
    if text is None:
        return SPAWNER_DEFAULT
    if not text.strip():
        raise ConfigError(
            f"--spawner is empty, expected {SPAWNER_DEFAULT}, {SPAWNER_OFF}, or a command that starts a worker"
        )
    return text.strip()


def _birth(text: str) -> Birth | None:
    """What the worker that spawned this one has put into its environment."""
    if not text:
        return None
    number, proof, patience_ms, *_ = [*text.split(" ", 3), "", "", ""]
    if not number.isdecimal() or not proof or not patience_ms.isdecimal():
        raise ConfigError(
            f"{SIBLING} is set to what no worker says; it is for workers that others spawn, unset it"
        )
    return Birth(number=int(number), proof=proof, join_within_ms=int(patience_ms))


def _handlers(given: tuple[str, ...], cwd: Path) -> dict[str, str]:
    """Name and program of each `NAME=PATH`; what could never run is refused now, not at the first job."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise ConfigError(f"--handler {text!r}: expected NAME=PATH")
        rule = _broken_rule(name)
        if rule:
            raise ConfigError(f"--handler {text!r}: NAME is a skill, expected {rule}")
        if name in found:
            raise ConfigError(f"--handler {name} is given twice")
        file = (cwd / Path(path).expanduser()).resolve()
        if not file.is_file():
            raise ConfigError(f"--handler {text}: there is no file {file}")
        if file.suffix not in INTERPRETED and not os.access(file, os.X_OK):
            raise ConfigError(
                f"--handler {text}: {file} is not executable; chmod +x it, or end its name in "
                f"{', '.join(INTERPRETED)}"
            )
        found[name] = str(file)
    return found


def _resources(given: tuple[str, ...]) -> dict[str, int]:
    """By name, in the units of `Counted`."""
    found: dict[str, int] = {}
    for one in given:
        name, equals, text = one.partition("=")
        rule = resource_name_fault(name)
        if not equals or rule:
            expected = rule or "an amount behind it, such as gpu=2, cpu=3.5 or memory=12GiB"
            raise ConfigError(f"--resource {one!r}: expected {expected}")
        if name in found:
            raise ConfigError(f"--resource {name} is given twice")
        found[name] = _amount(name, text)
    if len(found) > RESOURCES_PER_WORKER:
        raise ConfigError(
            f"{len(found)} resources are more than RESOURCES_PER_WORKER ({RESOURCES_PER_WORKER})"
        )
    return found


def _amount(name: str, text: str) -> int:
    if name == "memory":
        return _bytes("--resource memory", text, 0)
    if name == "cpu":
        if not _CORES.match(text) or float(text) * 1000 > CPU_MILLI:
            most = CPU_MILLI // 1000
            raise ConfigError(
                f"--resource cpu is {text!r}, expected cores, such as 3.5; up to {most}"
            )
        return round(float(text) * 1000)
    if not text.isascii() or not text.isdigit() or int(text) > RESOURCE_AMOUNT:
        raise ConfigError(
            f"--resource {name} is {text!r}, expected a whole number up to {RESOURCE_AMOUNT} "
            "(RESOURCE_AMOUNT)"
        )
    return int(text)


def _keep_ms(text: str | None) -> int:
    if text is None:
        return KEEP_MS
    try:
        value = parse_duration(text)
    except BadDuration as error:
        raise ConfigError(f"--keep: {error}") from error
    if value > KEEP_MS_MAX:
        raise ConfigError(f"--keep is {text}, expected 0s to {KEEP_MS_MAX // 3_600_000}h")
    return value


def _bytes(option: str, text: str | None, usual: int) -> int:
    if text is None:
        return usual
    match = _SIZE.match(text)
    if match is None:
        raise ConfigError(f"{option} is {text!r}, expected a number and KiB, MiB, GiB or TiB")
    size = int(match.group(1)) * _SIZES[match.group(2)]
    if size > _SIZE_MAX:
        raise ConfigError(f"{option} is {text}, expected at most 1024TiB")
    return size


def _drain_ms(text: str | None) -> int:
    if text is None:
        return DRAIN_TIMEOUT_MS_DEFAULT
    try:
        value = parse_duration(text)
    except BadDuration as error:
        raise ConfigError(f"--drain-timeout: {error}") from error
    if value > DRAIN_TIMEOUT_MS:
        raise ConfigError(
            f"--drain-timeout is {text}, expected 0s to {DRAIN_TIMEOUT_MS // 3_600_000}h "
            "(DRAIN_TIMEOUT_MS)"
        )
    return value


def _broken_rule(skill: str) -> str:
    """The rule for skills, if this one breaks it: a job could never ask for it."""
    asking = JobSpec(id="a", launch=Launch(script="a"), needs=Needs(skills=(skill,)))
    found = problems(RunSpec(name="a", jobs=(asking,)))
    return next((problem.hint for problem in found if problem.code == BAD_SKILL), "")


def _master(
    host: str | None,
    port: int | None,
    flag: str | None,
    environ: Mapping[str, str],
    cwd: Path,
) -> Address:
    try:
        if host is not None:
            address = parse_address(host)
            if port is None:
                return address
            if not 1 <= port <= _PORT_MAX:
                raise ConfigError(f"MASTER_PORT is {port}, expected 1 to {_PORT_MAX}")
            return Address(address.host, port)
        return find_master(flag, environ, cwd)
    except BadAddress as error:
        raise ConfigError(str(error)) from error
