"""The numbers of the messages, in blocks, and which lane each one takes.

One opcode, one struct: the opcode is the tag. A number is never used twice, not even after its
message is retired. From ``0x80`` on messages are ancillary: who does not know one ignores it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

ANCILLARY: Final = 0x80


class OpCode(IntEnum):
    """Every message of the protocol."""

    # link 0x01-0x0F
    HELLO = 0x01
    CHALLENGE = 0x02
    PROOF = 0x03
    WELCOME = 0x04
    REFUSED = 0x05
    PING = 0x06
    PONG = 0x07
    GOODBYE = 0x08
    ERROR = 0x09
    CANCEL = 0x0A
    DONE = 0x0B
    # worker 0x10-0x1F
    JOIN = 0x10
    JOINED = 0x11
    WORKER_STATUS = 0x12
    START_ATTEMPTS = 0x13
    STOP_ATTEMPTS = 0x14
    ATTEMPT_REPORTS = 0x15
    REPORT_ACKS = 0x16
    LEAVE = 0x17
    HEARTBEAT_ACK = 0x18
    SHUT_DOWN = 0x19
    # logs 0x20-0x27
    LOG_CHUNK = 0x20
    LOG_ACK = 0x21
    READ_LOG = 0x22
    LOG_DATA = 0x23
    LOG_GAP = 0x24
    LOG_PIECE = 0x25
    # artifacts 0x28-0x2F
    OFFER_ARTIFACT = 0x28
    ARTIFACT_WANTED = 0x29
    ARTIFACT_CHUNK = 0x2A
    ARTIFACT_STORED = 0x2B
    FETCH_ARTIFACT = 0x2C
    FIND_FILES = 0x2D
    FILES_FOUND = 0x2E
    # runs 0x30-0x3F
    SUBMIT_RUN = 0x30
    RUN_RECEIPT = 0x31
    CANCEL_RUN = 0x32
    GET_RUN = 0x33
    RUN_VIEW = 0x34
    LIST_RUNS = 0x35
    RUN_LIST = 0x36
    LIST_JOBS = 0x37
    JOB_LIST = 0x38
    GET_JOB = 0x39
    JOB_VIEW = 0x3A
    WAIT_RUN = 0x3B
    WAIT_JOB = 0x3C
    WATCH_RUN = 0x3D
    JOB_CHANGE = 0x3E
    RERUN_RUN = 0x3F
    # services 0x40-0x47
    LIST_SERVICES = 0x40
    SERVICE_LIST = 0x41
    STOP_SERVICE = 0x42
    SERVICE_VIEW = 0x43
    SCALE_SERVICE = 0x44
    RESTART_SERVICE = 0x45
    STOP_JOB = 0x46
    # gates 0x48-0x4F
    LIST_GATES = 0x48
    GATE_LIST = 0x49
    DECIDE_GATE = 0x4A
    GATE_VIEW = 0x4B
    # schedules 0x50-0x57
    PUT_SCHEDULE = 0x50
    SCHEDULE_VIEW = 0x51
    LIST_SCHEDULES = 0x52
    SCHEDULE_LIST = 0x53
    GET_SCHEDULE = 0x54
    PAUSE_SCHEDULE = 0x55
    TRIGGER_SCHEDULE = 0x56
    REMOVE_SCHEDULE = 0x57
    # cluster 0x58-0x5F
    GET_STATS = 0x58
    STATS = 0x59
    LIST_DEAD = 0x5A
    SHUT_DOWN_WORKER = 0x5B
    SHUTDOWN_ORDERED = 0x5C
    GET_TRAFFIC = 0x5E
    TRAFFIC = 0x5F
    # placement 0x60-0x67
    EXPLAIN_JOB = 0x60
    EXPLANATION = 0x61
    CORDON_WORKER = 0x64
    LIST_WORKERS = 0x65
    WORKER_LIST = 0x66
    # files by name 0x68-0x6B
    LIST_FILES = 0x68
    FILE_LIST = 0x69
    NAME_FILE = 0x6A
    FILE_VIEW = 0x6B
    # tickets for the dashboard 0x6C-0x6F
    ISSUE_TICKET = 0x6C
    TICKET_ISSUED = 0x6D
    REDEEM_TICKET = 0x6E
    TICKET_REDEEMED = 0x6F
    # how busy workers are 0x70-0x77
    GET_USAGE = 0x70
    USAGE_VIEW = 0x71
    # attempts of a job 0x74-0x77
    LIST_ATTEMPTS = 0x74
    ATTEMPT_LIST = 0x75
    # workers that workers spawn 0x78-0x7F
    SPAWN_SIBLING = 0x78
    SPAWN_REPORTS = 0x79
    SPAWN_VERDICTS = 0x7A
    SPAWN_WORKER = 0x7B
    SPAWN_ORDERED = 0x7C
    GET_SCALING = 0x7D
    SCALING = 0x7E
    # ancillary: how busy workers are 0x80-0x87
    WORKER_USAGE = 0x80
    SAMPLE_USAGE = 0x81
    # ancillary: workers that workers spawn 0x88-0x8F
    KIN = 0x88


BULK: Final = frozenset(
    {
        OpCode.LOG_CHUNK,
        OpCode.LOG_GAP,
        OpCode.LOG_DATA,
        OpCode.LOG_PIECE,
        OpCode.ARTIFACT_CHUNK,
    }
)
"""Messages of the bulk lane: control frames overtake them in the outbox."""

HANDSHAKE: Final = frozenset(
    {OpCode.HELLO, OpCode.CHALLENGE, OpCode.PROOF, OpCode.WELCOME, OpCode.REFUSED}
)
"""Messages of the handshake alone; on an open link they are a protocol error."""


def is_ancillary(opcode: int) -> bool:
    """Whether a peer that does not know `opcode` may ignore it."""
    return bool(opcode & ANCILLARY)
