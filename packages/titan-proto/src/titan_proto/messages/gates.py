"""Messages about gates: which are open, and what is decided about them."""

from __future__ import annotations

from typing import ClassVar

from titan_proto.messages.base import Message, Request
from titan_proto.opcodes import OpCode
from titan_proto.states import ExitReason, JobState


class GateView(Message, frozen=True, kw_only=True):
    """A gate as it stands. `state` is its job's: WAITING while it is open."""

    OPCODE: ClassVar[OpCode] = OpCode.GATE_VIEW
    run_id: str
    run_alias: str
    job_id: str
    state: JobState
    message: str = ""
    """The question."""
    opened_at_ms: int = 0
    expires_at_ms: int = 0
    """0 means never."""
    decided_at_ms: int = 0
    decided_by: str = ""
    """The public id of the token that decided."""
    reason: ExitReason = ExitReason.UNKNOWN
    """APPROVED, REJECTED or EXPIRED once that is so."""
    comment: str = ""


class GateList(Message, frozen=True, kw_only=True):
    """One page of open gates, oldest first."""

    OPCODE: ClassVar[OpCode] = OpCode.GATE_LIST
    gates: tuple[GateView, ...]
    cursor: str = ""


class ListGates(Request[GateList], frozen=True, kw_only=True):
    """Ask for the gates that are open."""

    OPCODE: ClassVar[OpCode] = OpCode.LIST_GATES
    cursor: str = ""
    limit: int = 100


class DecideGate(Request[GateView], frozen=True, kw_only=True):
    """Approve or reject: by `run/job`, or by a bare job id that is unique among open gates.

    The same decision twice is one; another one about a gate that is decided is refused.
    """

    OPCODE: ClassVar[OpCode] = OpCode.DECIDE_GATE
    gate: str
    approve: bool
    comment: str = ""
