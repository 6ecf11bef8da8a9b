"""Who is this, and may they? Tokens → Identity; Identity and opcode → yes or no.

One table for the whole protocol, default deny: what has no row is refused, and a test fails for an
opcode without one. It looks at the opcode alone; whose attempt or run a message is about is for the
core to say. Called by ``link.py`` for every message, and in the handshake.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from titan_proto.errors import ErrorCode
from titan_proto.handshake import Token
from titan_proto.messages import Hello, OpCode, Refused, Role

JOB: Final = "job"
"""A running job that speaks through its worker; never a role of a token."""
VIEWER, CLIENT, ADMIN, WORKER = (
    role.value for role in (Role.VIEWER, Role.CLIENT, Role.ADMIN, Role.WORKER)
)
ROLES: Final = (VIEWER, CLIENT, ADMIN, WORKER, JOB)
ANY_ROLE: Final = frozenset({Role.VIEWER, Role.CLIENT, Role.ADMIN, Role.WORKER})
"""What the local token may be."""

_EVERYBODY: Final = frozenset(ROLES)
_READERS: Final = frozenset({VIEWER, CLIENT, ADMIN})
_ACTORS: Final = frozenset({CLIENT, ADMIN})
_ADMINS: Final = frozenset({ADMIN})
_WORKERS: Final = frozenset({WORKER})
_NOBODY: Final[frozenset[str]] = frozenset()

TABLE: Final[dict[OpCode, frozenset[str]]] = {
    # The handshake is over before anybody is asked; on an open link these break the protocol.
    OpCode.HELLO: _NOBODY,
    OpCode.CHALLENGE: _NOBODY,
    OpCode.PROOF: _NOBODY,
    OpCode.WELCOME: _NOBODY,
    OpCode.REFUSED: _NOBODY,
    OpCode.PING: _EVERYBODY,
    OpCode.PONG: _EVERYBODY,
    OpCode.GOODBYE: _EVERYBODY,
    OpCode.ERROR: _EVERYBODY,
    OpCode.CANCEL: _EVERYBODY,
    OpCode.DONE: _NOBODY,
    # worker: its own block, and the artifacts that its attempts need
    OpCode.JOIN: _WORKERS,
    OpCode.JOINED: _NOBODY,
    OpCode.WORKER_STATUS: _WORKERS,
    OpCode.START_ATTEMPTS: _NOBODY,
    OpCode.STOP_ATTEMPTS: _NOBODY,
    OpCode.ATTEMPT_REPORTS: _WORKERS,
    OpCode.REPORT_ACKS: _NOBODY,
    OpCode.LEAVE: _WORKERS,
    OpCode.HEARTBEAT_ACK: _NOBODY,
    OpCode.SHUT_DOWN: _NOBODY,
    # logs
    OpCode.LOG_CHUNK: _WORKERS,
    OpCode.LOG_ACK: _NOBODY,
    OpCode.READ_LOG: _READERS,
    OpCode.LOG_DATA: _NOBODY,
    OpCode.LOG_GAP: _WORKERS,
    OpCode.LOG_PIECE: _NOBODY,
    # artifacts
    OpCode.OFFER_ARTIFACT: _ACTORS | _WORKERS,
    OpCode.ARTIFACT_WANTED: _NOBODY,
    OpCode.ARTIFACT_CHUNK: _ACTORS | _WORKERS,
    OpCode.ARTIFACT_STORED: _NOBODY,
    OpCode.FETCH_ARTIFACT: _ACTORS | _WORKERS,
    OpCode.FIND_FILES: _ACTORS,
    OpCode.FILES_FOUND: _NOBODY,
    # runs
    OpCode.SUBMIT_RUN: _ACTORS,
    OpCode.RUN_RECEIPT: _NOBODY,
    OpCode.CANCEL_RUN: _ACTORS,
    OpCode.GET_RUN: _READERS | _WORKERS,
    OpCode.RUN_VIEW: _NOBODY,
    OpCode.LIST_RUNS: _READERS,
    OpCode.RUN_LIST: _NOBODY,
    OpCode.LIST_JOBS: _READERS,
    OpCode.JOB_LIST: _NOBODY,
    OpCode.GET_JOB: _READERS,
    OpCode.LIST_ATTEMPTS: _READERS,
    OpCode.ATTEMPT_LIST: _NOBODY,
    OpCode.JOB_VIEW: _NOBODY,
    OpCode.WAIT_RUN: _READERS,
    OpCode.WAIT_JOB: _READERS,
    OpCode.WATCH_RUN: _READERS,
    OpCode.JOB_CHANGE: _NOBODY,
    OpCode.RERUN_RUN: _ACTORS,
    # services
    OpCode.LIST_SERVICES: _READERS,
    OpCode.SERVICE_LIST: _NOBODY,
    OpCode.STOP_SERVICE: _ACTORS,
    OpCode.SCALE_SERVICE: _ACTORS,
    OpCode.RESTART_SERVICE: _ACTORS,
    OpCode.STOP_JOB: _ACTORS,
    OpCode.SERVICE_VIEW: _NOBODY,
    # gates: a job never decides, least of all about its own
    OpCode.LIST_GATES: _READERS,
    OpCode.GATE_LIST: _NOBODY,
    OpCode.DECIDE_GATE: _ACTORS,
    OpCode.GATE_VIEW: _NOBODY,
    # schedules: whoever may run something now may have it run later
    OpCode.PUT_SCHEDULE: _ACTORS,
    OpCode.SCHEDULE_VIEW: _NOBODY,
    OpCode.LIST_SCHEDULES: _READERS,
    OpCode.SCHEDULE_LIST: _NOBODY,
    OpCode.GET_SCHEDULE: _READERS,
    OpCode.PAUSE_SCHEDULE: _ACTORS,
    OpCode.TRIGGER_SCHEDULE: _ACTORS,
    OpCode.REMOVE_SCHEDULE: _ACTORS,
    # cluster
    OpCode.GET_STATS: _READERS,
    OpCode.STATS: _NOBODY,
    OpCode.LIST_DEAD: _READERS,
    OpCode.SHUT_DOWN_WORKER: _ADMINS,
    OpCode.SHUTDOWN_ORDERED: _NOBODY,
    OpCode.GET_TRAFFIC: _READERS,
    OpCode.TRAFFIC: _NOBODY,
    # tickets: whoever holds one gives it in through the dashboard, which need not be allowed more than to look
    OpCode.ISSUE_TICKET: _ADMINS,
    OpCode.TICKET_ISSUED: _NOBODY,
    OpCode.REDEEM_TICKET: _READERS,
    OpCode.TICKET_REDEEMED: _NOBODY,
    OpCode.GET_USAGE: _READERS,
    OpCode.USAGE_VIEW: _NOBODY,
    OpCode.WORKER_USAGE: _WORKERS,
    OpCode.SAMPLE_USAGE: _NOBODY,
    # placement
    OpCode.EXPLAIN_JOB: _READERS,
    OpCode.EXPLANATION: _NOBODY,
    OpCode.CORDON_WORKER: _ADMINS,
    OpCode.LIST_WORKERS: _READERS,
    OpCode.WORKER_LIST: _NOBODY,
    # workers that workers spawn
    OpCode.KIN: _WORKERS,
    OpCode.SPAWN_SIBLING: _NOBODY,
    OpCode.SPAWN_REPORTS: _WORKERS,
    OpCode.SPAWN_VERDICTS: _NOBODY,
    OpCode.SPAWN_WORKER: _ADMINS,
    OpCode.SPAWN_ORDERED: _NOBODY,
    OpCode.GET_SCALING: _READERS,
    OpCode.SCALING: _NOBODY,
    # files by name: a viewer sees what there is; its content is for those who may run it
    OpCode.LIST_FILES: _READERS,
    OpCode.FILE_LIST: _NOBODY,
    OpCode.NAME_FILE: _ACTORS,
    OpCode.FILE_VIEW: _NOBODY,
}
"""Who may send what to the master."""


class Identity(Struct, frozen=True, kw_only=True):
    """Who is at the other end."""

    role: str
    name: str
    """The token's public id; runs keep it as their owner."""


def is_allowed(role: str, opcode: OpCode) -> bool:
    """Whether this role may send this to the master."""
    return role in TABLE.get(opcode, _NOBODY)


class Grant(Struct, frozen=True, kw_only=True):
    """A token, as the master keeps it: never the secret itself."""

    token: Token
    roles: frozenset[Role]


class Gatekeeper:
    """The tokens of this master."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._grants = {grant.token.token_id: grant for grant in grants}

    def authenticate(self, hello: Hello) -> bytes | Refused:
        """K of the token that a Hello names, or why it is not let in."""
        grant = self._grants.get(hello.token_id)
        if grant is None:
            return Refused(
                code=ErrorCode.UNAUTHENTICATED,
                reason="this master does not know that token; its own lies in its data folder",
            )
        if hello.role not in grant.roles:
            return Refused(
                code=ErrorCode.PERMISSION_DENIED,
                reason=f"that token may not take the role {hello.role.value}",
            )
        return grant.token.key

    def identify(self, hello: Hello) -> Identity:
        """Who it is, once the proof has been given."""
        return Identity(role=hello.role.value, name=hello.token_id)
