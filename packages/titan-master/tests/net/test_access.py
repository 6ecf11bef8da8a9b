"""The table of who may send what: complete, and closed where nothing is said."""

from __future__ import annotations

import pytest

from titan_master.net import access
from titan_master.net.access import ROLES, TABLE, Gatekeeper, Grant, is_allowed
from titan_master.net.link import MasterLink
from titan_proto.errors import ErrorCode
from titan_proto.handshake import format_token, parse_token
from titan_proto.messages import REGISTRY, Hello, OpCode, Refused, Request, Role

READS = (
    "READ_LOG GET_RUN LIST_RUNS LIST_JOBS GET_JOB LIST_ATTEMPTS REDEEM_TICKET WAIT_RUN WAIT_JOB WATCH_RUN LIST_SERVICES "
    "GET_STATS GET_TRAFFIC GET_USAGE LIST_GATES LIST_DEAD LIST_FILES GET_SCALING LIST_WORKERS EXPLAIN_JOB "
    "LIST_SCHEDULES GET_SCHEDULE "
)
ACTS = (
    "SUBMIT_RUN RERUN_RUN CANCEL_RUN STOP_SERVICE SCALE_SERVICE RESTART_SERVICE STOP_JOB DECIDE_GATE OFFER_ARTIFACT ARTIFACT_CHUNK "
    "FETCH_ARTIFACT FIND_FILES NAME_FILE "
    "PUT_SCHEDULE PAUSE_SCHEDULE TRIGGER_SCHEDULE REMOVE_SCHEDULE"
)
HANDSHAKE = {"HELLO", "CHALLENGE", "PROOF", "WELCOME", "REFUSED"}


def test_every_opcode_has_a_row_and_every_row_an_opcode():
    """A new message is not let in, or forgotten, by accident."""
    assert set(TABLE) == set(OpCode) == set(REGISTRY)


def test_rows_name_roles_only():
    """A misspelt role would let nobody in, or be let in by nobody."""
    assert {role for row in TABLE.values() for role in row} <= set(ROLES)
    assert {role.value for role in Role} - {"unknown"} <= set(ROLES)


def test_an_opcode_without_a_row_is_refused_to_everybody(monkeypatch):
    """Default deny."""
    monkeypatch.delitem(TABLE, OpCode.PING)
    assert not any(is_allowed(role, OpCode.PING) for role in ROLES)
    assert not is_allowed("root", OpCode.GET_STATS)


@pytest.mark.parametrize("opcode", OpCode)
def test_each_role_may_what_the_one_below_may(opcode):
    """viewer < client < admin."""
    allowed = [is_allowed(role, opcode) for role in (access.VIEWER, access.CLIENT, access.ADMIN)]
    assert allowed == sorted(allowed)


@pytest.mark.parametrize(
    ("role", "opcodes"),
    [
        (
            "viewer",
            READS,
        ),
        (
            "client",
            READS + ACTS,
        ),
        ("admin", READS + ACTS + " SHUT_DOWN_WORKER ISSUE_TICKET SPAWN_WORKER CORDON_WORKER"),
        (
            "worker",
            """JOIN WORKER_STATUS WORKER_USAGE ATTEMPT_REPORTS KIN SPAWN_REPORTS LEAVE LOG_CHUNK LOG_GAP
            FETCH_ARTIFACT OFFER_ARTIFACT ARTIFACT_CHUNK GET_RUN""",
        ),
        ("job", ""),
    ],
)
def test_what_a_role_may(role, opcodes):
    """Word for word, beside what everybody may."""
    everybody = {"PING", "PONG", "GOODBYE", "ERROR", "CANCEL"}
    allowed = {opcode.name for opcode in OpCode if is_allowed(role, opcode)}
    assert allowed - everybody == set(opcodes.split())
    assert everybody <= allowed


def test_what_the_master_says_is_said_by_nobody_else():
    """No reply and no part of the handshake is taken from a peer on an open link."""
    requests = {opcode.name for opcode, kind in REGISTRY.items() if issubclass(kind, Request)}
    said_by_peers = requests | {
        "PING", "PONG", "GOODBYE", "ERROR", "CANCEL", "ARTIFACT_CHUNK", "LOG_CHUNK", "LOG_GAP",
        "JOIN", "WORKER_STATUS", "WORKER_USAGE", "ATTEMPT_REPORTS", "KIN", "SPAWN_REPORTS", "LEAVE",
    }  # fmt: skip
    assert {opcode.name for opcode, row in TABLE.items() if row} == said_by_peers
    assert not said_by_peers & HANDSHAKE


def test_every_request_that_somebody_may_send_goes_somewhere():
    """One that went nowhere would leave who asked without an answer for ever."""
    allowed = {
        kind
        for opcode, kind in REGISTRY.items()
        if issubclass(kind, Request) and any(is_allowed(role, opcode) for role in ROLES)
    }
    assert [kind for kind in allowed if not MasterLink.handles(kind)] == []


def hello(token_id="abc", role=Role.CLIENT):
    return Hello(versions=(1,), role=role, software="t", token_id=token_id, client_nonce=b"n" * 32)


def test_a_token_is_known_by_its_id_and_takes_only_its_roles():
    """Refusals say why, and never what the secret is."""
    token = parse_token(format_token("viewer", "abc", "12" * 32))
    keeper = Gatekeeper([Grant(token=token, roles=frozenset({Role.VIEWER}))])
    assert keeper.authenticate(hello(role=Role.VIEWER)) == token.key
    unknown = keeper.authenticate(hello("other", Role.VIEWER))
    assert isinstance(unknown, Refused)
    assert unknown.code is ErrorCode.UNAUTHENTICATED
    above = keeper.authenticate(hello(role=Role.ADMIN))
    assert isinstance(above, Refused)
    assert above.code is ErrorCode.PERMISSION_DENIED
