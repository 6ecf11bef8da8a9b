"""Jobs as Python objects: `TitanJob`, `TitanService` for those meant to stay up, `TitanGate` for those
that a person does.

Takes the keys of a pipeline file under the same names and refuses a bad value at once, with every
problem of the job in one error. Never touches files or the network: the client packs a script
when it submits.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from typing import Any

from titan_proto.errors import InvalidSpec, Problem
from titan_proto.specs import GateSection, JobKind, JobSpec, LaunchKind, Shape
from titan_sdk.keys import READERS, BadValue, approval_of, conflicts, job_spec, named, shape_of

Duration = str | int | float
"""`90s`, `1h30m`, or a number of seconds."""

Moment = str | datetime.datetime
"""A date and a time with its zone: `2026-12-01T08:30:00Z`, or an aware datetime."""

FilePath = str | os.PathLike[str]


class TitanJob:
    """One node of a run.

    Args:
        id: its name in the run.
        filename: the script, as in `script`.
        script: a file, looked for in the working folder, then by name in the master's perm_files.
        run: instead of a script: a line for the shell.
        command: instead of a script: a program and its arguments, no shell.
        handler: instead of a script: what a worker registered under this name (`titan-worker --handler`),
            which is a skill of that worker; `args` are its data.
        python: what runs a `.py` script on the worker: a version, looked for there by name (3.12 is
            python3.12), or an absolute path. By default the worker's own.
        args: a list is passed exactly, a string is split like a shell does.
        env: variables for the process.
        env_file: one or more files of KEY=VALUE lines, read at submission from the working folder;
            `env` wins over them.
        dependencies: jobs (or their ids) that must have succeeded before; see `trigger`.
        type: "TASK" ends by itself, "SERVICE" is meant to stay up, "APPROVAL" waits for a person.
        port: of a service: its port, told to it as $PORT; "auto" takes a free one.
        healthcheck: of a service: when it counts as healthy; a path that answers by HTTP, or a mapping
            of http, tcp or command and interval, timeout, retries, start_period, port.
        replicas: of a service: how many instances of it there are.
        requirement: one skill that the worker must have, or a list of them.
        skills: the skills that the worker must have.
        slots: how much of a worker's room it takes; of a service also 0.
        priority: 0 to 10, 10 first.
        at: it does not start before this moment; text such as 2026-12-01T08:30:00Z, or a datetime with a zone.
        delay: how long it waits once it could start.
        affinity: prefer the worker on which a parent ran; or a mapping of with (a job before it) and mode
            ("prefer", "require").
        worker: the only worker that may have it: its name (HOST:PORT), its id, or a host with all of its
            workers. It waits while none of them is there.
        spread: it goes where the fewest jobs of its run are.
        concurrency: a group of jobs, in all runs, of which one may run at a time; or a mapping of group and
            limit.
        stop_grace: time between SIGTERM and SIGKILL when it is stopped.
        restart: of a service: after which ends its worker starts it again, "always" (the default),
            "on-failure" or "never"; or a mapping of policy, max, within, delay, backoff, max_delay.
        retries: how often it is tried again after failures of its own; a number, or a mapping of
            limit, delay, backoff, max_delay, jitter, causes, not_exit_codes.
        timeout: how long one attempt may run; of a gate: how long it waits for a decision.
        job_timeout: how long all attempts together may take, from the first one's placement.
        resources: what it may use at most, with all that it starts, and what it takes of its worker's
            for as long as it runs: a mapping of cpu (cores), memory (512MiB, 2G), pids (only a limit),
            gpu and other names (only counted).
        exclusive: two attempts must never run at once, even where a machine cannot be reached.
        delivery: "at-least-once" (the default), or "at-most-once": never tried again where it may
            have been done.
        approval: a question to a person: what depends on this job waits for an answer. A gate behind
            it, called hitl-gate-ID; a text, or a mapping of message, timeout, on_timeout.
        hitl_message: the same, as the original calls it.
        max_wait_seconds: beside it: how long that gate waits for a decision.
        message: of a gate: its question.
        share: who is given what it leaves in $TITAN_SHARED: "run" (the default), whatever depends on it,
            on whichever machine; "node", only what runs on the same one.
        artifacts: files that are carried from job to job: a mapping of out (paths and patterns inside
            its working folder) and in ("JOB:PATTERN", of what a job before it hands out).
        trigger: which ends of its dependencies let it begin: "all_succeeded" (the default), "all_done",
            "any_failed", "any_succeeded" or "none_failed".
        matrix: axes with their values: it becomes a job for each combination, ID.1, ID.2 and so on, in
            which ${{ matrix.AXIS }} stands for a value; and exclude and include, lists of cells.
        when: a condition, such as "jobs.A.outputs.rows > 0"; where it is false the job is skipped.
        on_timeout: of a gate about which nobody decided in time: "reject", "approve" or "fail".

    Raises:
        InvalidSpec: a value is not what its key takes; `problems` lists all of them.
    """

    __slots__ = ("_approval", "_env_file", "_matrix", "_shape", "_spec")

    def __init__(
        self,
        id: str,  # noqa: A002 - the key's name, in YAML as here
        filename: str | os.PathLike[str] | None = None,
        *,
        script: str | os.PathLike[str] | None = None,
        run: str | None = None,
        command: Sequence[str] | str | None = None,
        handler: str | None = None,
        python: str | float | os.PathLike[str] | None = None,
        args: Sequence[object] | str | None = None,
        env: Mapping[str, object] | None = None,
        env_file: FilePath | Sequence[FilePath] | None = None,
        dependencies: Sequence[str | TitanJob] | str | TitanJob | None = None,
        type: str | None = None,  # noqa: A002 - likewise
        port: int | str | None = None,
        requirement: Sequence[str] | str | None = None,
        skills: Sequence[str] | str | None = None,
        priority: int | None = None,
        at: Moment | None = None,
        delay: Duration | None = None,
        affinity: bool | Mapping[str, object] | None = None,
        worker: str | None = None,
        spread: bool | None = None,
        concurrency: str | Mapping[str, object] | None = None,
        stop_grace: Duration | None = None,
        restart: str | Mapping[str, object] | None = None,
        healthcheck: str | Mapping[str, object] | None = None,
        replicas: int | None = None,
        slots: int | None = None,
        retries: int | Mapping[str, object] | None = None,
        timeout: Duration | None = None,
        job_timeout: Duration | None = None,
        resources: Mapping[str, object] | None = None,
        exclusive: bool | None = None,
        delivery: str | None = None,
        approval: str | Mapping[str, object] | None = None,
        hitl_message: str | None = None,
        max_wait_seconds: Duration | None = None,
        message: str | None = None,
        on_timeout: str | None = None,
        share: str | None = None,
        artifacts: Mapping[str, object] | None = None,
        trigger: str | None = None,
        when: str | None = None,
        matrix: Mapping[str, object] | None = None,
    ) -> None:
        if filename is not None and script is not None:
            raise InvalidSpec(
                f"job {named(id)}: filename and script are the same key; give one of them"
            )
        if approval is not None and hitl_message is not None:
            raise InvalidSpec(
                f"job {named(id)}: approval and hitl_message are the same key; give one"
            )
        path = script if filename is None else filename
        read = _read(
            {
                "id": id,
                "script": None if path is None else os.fspath(path),
                "run": run,
                "command": command,
                "handler": handler,
                "python": os.fspath(python) if isinstance(python, os.PathLike) else python,
                "args": args,
                "env": env,
                "env_file": env_file,
                "dependencies": _ids(dependencies),
                "type": type,
                "port": port,
                "requirement": requirement,
                "skills": skills,
                "priority": priority,
                "at": at,
                "delay": delay,
                "affinity": affinity,
                "worker": worker,
                "spread": spread,
                "concurrency": concurrency,
                "stop_grace": stop_grace,
                "restart": restart,
                "healthcheck": healthcheck,
                "replicas": replicas,
                "slots": slots,
                "retries": retries,
                "timeout": timeout,
                "job_timeout": job_timeout,
                "resources": resources,
                "exclusive": exclusive,
                "delivery": delivery,
                "approval": hitl_message if approval is None else approval,
                "max_wait_seconds": max_wait_seconds,
                "message": message,
                "on_timeout": on_timeout,
                "share": share,
                "artifacts": artifacts,
                "trigger": trigger,
                "when": when,
                "matrix": matrix,
            }
        )
        self._spec = job_spec(read)
        self._shape = shape_of(read)
        self._matrix: tuple[dict[str, str], ...] | None = read.get("matrix")
        self._approval = approval_of(read)
        self._env_file: tuple[str, ...] = read.get("env_file", ())

    @property
    def id(self) -> str:
        """The job's name in its run."""
        return self._spec.id

    @property
    def script(self) -> str | None:
        """The file it runs, if it runs one."""
        launch = self._spec.launch
        return launch.script or None if launch.kind is LaunchKind.SCRIPT else None

    filename = script

    @property
    def spec(self) -> JobSpec:
        """What is sent; the script's bytes come to it at submission."""
        return self._spec

    @property
    def shape(self) -> Shape | None:
        """What is sent of it beside that, as a part of its run; None where that is nothing."""
        return self._shape

    @property
    def matrix(self) -> tuple[dict[str, str], ...] | None:
        """The values of its cells, of which it is the template; None if it has no matrix."""
        return self._matrix

    @property
    def approval(self) -> GateSection | None:
        """The gate that is put behind it at submission, if it asks for one."""
        return self._approval

    @property
    def env_file(self) -> tuple[str, ...]:
        """The files of variables that are read at submission."""
        return self._env_file

    def __repr__(self) -> str:
        if self._spec.kind is JobKind.GATE:
            return f"{type(self).__name__}(id={self.id!r})"
        launch = self._spec.launch
        what = launch.script or launch.shell or launch.handler or " ".join(launch.command)
        return f"{type(self).__name__}(id={self.id!r}, {launch.kind.value.lower()}={what!r})"


class TitanService(TitanJob):
    """A job that is meant to stay up. Its dependants start once its port answers."""

    __slots__ = ()

    def __init__(
        self,
        id: str,  # noqa: A002 - as in TitanJob
        filename: str | os.PathLike[str] | None = None,
        *,
        port: int | str | None = None,
        **keys: Any,
    ) -> None:
        super().__init__(id, filename, port=port, type="SERVICE", **keys)


class TitanGate(TitanJob):
    """A job that a person does: what depends on it starts once somebody has approved it.

    Args:
        id: its name in the run.
        message: the question.
        dependencies: jobs (or their ids) that must have succeeded before it is asked.
        timeout: how long it waits for a decision; 48 hours by default.
        on_timeout: what becomes of it then: "reject" (the default), "approve" or "fail".
        at: it is not asked before this moment.
        delay: how long it waits before it is asked.
        trigger: which ends of its dependencies let it open.
        when: a condition; where it is false the gate is skipped.
    """

    __slots__ = ()

    def __init__(
        self,
        id: str,  # noqa: A002 - as in TitanJob
        message: str | None = None,
        *,
        dependencies: Sequence[str | TitanJob] | str | TitanJob | None = None,
        timeout: Duration | None = None,
        on_timeout: str | None = None,
        at: Moment | None = None,
        delay: Duration | None = None,
        trigger: str | None = None,
        when: str | None = None,
    ) -> None:
        super().__init__(
            id,
            type="APPROVAL",
            message=message,
            dependencies=dependencies,
            timeout=timeout,
            on_timeout=on_timeout,
            at=at,
            delay=delay,
            trigger=trigger,
            when=when,
        )


def _ids(given: object) -> object:
    if isinstance(given, TitanJob):
        return given.id
    if isinstance(given, (list, tuple)):
        return [one.id if isinstance(one, TitanJob) else one for one in given]
    return given


def _read(given: Mapping[str, object]) -> dict[str, Any]:
    read: dict[str, Any] = {}
    found: list[Problem] = []
    for key, value in given.items():
        if value is None and key != "id":
            continue
        try:
            read[key] = READERS[key](value)
        except BadValue as error:
            at = f" (at character {error.offset + 1})" if error.offset else ""
            found.append(Problem(where=key, message=error.message + at, hint=error.hint))
    bad = {problem.where for problem in found}
    # A key that could not be read is still a key that was given.
    present = {**dict.fromkeys(bad), **read}
    for key, message, hint in conflicts(present):
        if key not in bad:
            found.append(Problem(where=key, message=message, hint=hint))
    if found:
        # What does not go together says itself which keys are meant.
        lines = [
            ("" if p.where not in bad else f"{p.where}: ")
            + p.message
            + (f" ({p.hint})" if p.hint else "")
            for p in found
        ]
        raise InvalidSpec(f"job {named(given['id'])}: " + "; ".join(lines), problems=tuple(found))
    return read
