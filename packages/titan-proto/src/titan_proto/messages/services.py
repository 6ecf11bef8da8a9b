"""Messages about services: what is up, and stop it."""

from __future__ import annotations

from typing import ClassVar

from titan_proto.messages.base import Message, Request
from titan_proto.messages.runs import JobView
from titan_proto.opcodes import OpCode
from titan_proto.states import ExitReason, ServiceState


class ServiceView(Message, frozen=True, kw_only=True):
    """A service that has settled, named `<run name>/<job id>`."""

    OPCODE: ClassVar[OpCode] = OpCode.SERVICE_VIEW
    name: str
    run_id: str
    run_alias: str
    job_id: str
    attempt: int
    state: ServiceState
    worker: str = ""
    port: int = 0
    healthy_at_ms: int = 0
    ended_at_ms: int = 0
    reason: ExitReason = ExitReason.UNKNOWN
    exit_code: int = 0
    signal: int = 0
    message: str = ""
    restarts: int = 0
    """By its worker, in this attempt."""


class ServiceList(Message, frozen=True, kw_only=True):
    """Every service that is up, and behind them those that have ended, where these were asked for."""

    OPCODE: ClassVar[OpCode] = OpCode.SERVICE_LIST
    services: tuple[ServiceView, ...]


class ListServices(Request[ServiceList], frozen=True, kw_only=True):
    """Ask for the services that are up."""

    OPCODE: ClassVar[OpCode] = OpCode.LIST_SERVICES
    ended: bool = False
    """Those too that were up and have ended: the last to end first, at most `limit` of them."""
    limit: int = 100
    run: str = ""
    """Only those of the run with exactly this id."""


class StopService(Request[ServiceView], frozen=True, kw_only=True):
    """Stop one: by its name, by `run/job`, or by a bare job id that is unique among services."""

    OPCODE: ClassVar[OpCode] = OpCode.STOP_SERVICE
    service: str


class ScaleService(Request[ServiceList], frozen=True, kw_only=True):
    """Have so many instances of a service; answered with all of them as they are then."""

    OPCODE: ClassVar[OpCode] = OpCode.SCALE_SERVICE
    service: str
    replicas: int


class RestartService(Request[ServiceList], frozen=True, kw_only=True):
    """Replace every instance of a service by a new one; each goes once its replacement is healthy."""

    OPCODE: ClassVar[OpCode] = OpCode.RESTART_SERVICE
    service: str


class StopJob(Request[JobView], frozen=True, kw_only=True):
    """Stop a job of a live run: it will be CANCELLED, as is what depends on it. Others go on."""

    OPCODE: ClassVar[OpCode] = OpCode.STOP_JOB
    run: str
    job: str
