"""What an operator may choose, in one frozen struct; flags win over environment over defaults.

It reads no clock and opens no socket; ``cli.py`` makes it from flags, ``app.py`` acts on it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from msgspec import Struct

from titan_proto import durations
from titan_proto.errors import TitanError
from titan_proto.io.address import Address, BadAddress, parse_address
from titan_proto.limits import (
    ARTIFACT_KEEP_MIN_MS,
    ARTIFACT_KEEP_MS,
    ARTIFACTS_BYTES,
    DEFAULT_PORT,
    HANDSHAKE_TIMEOUT_MS,
    LOG_BYTES_PER_ATTEMPT,
    LOG_BYTES_PER_ATTEMPT_MIN,
    SCALE_EVERY_MS,
    SIBLING_IDLE_MS,
    SIBLINGS,
    SIBLINGS_PER_HOST,
    WORKER_LOST_AFTER_MS,
)

DEFAULT_LISTEN: Final = f"127.0.0.1:{DEFAULT_PORT}"
DEFAULT_DATA: Final = ".titan"
DATABASE: Final = "titan.sqlite"
"""The journal's file in the data folder."""

DISK_RESERVE_BYTES: Final = 64 * 1024 * 1024

_SIZE = re.compile(r"(\d+)\s*(KiB|MiB|GiB)\Z")
_SIZES: Final = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_DISK_RESERVE_BYTES: Final = (64 * 1024, 1024**4)
_LOG_CAP_MAX_BYTES: Final = 1024**4
_ARTIFACTS_CAP_MAX_BYTES: Final = 1024**5
_LOST_AFTER_MS: Final = (100, 24 * 3_600_000)
_SCALE_MS: Final = (100, 24 * 3_600_000)
_KEEP_MAX_MS: Final = 8_760 * 3_600_000


class BadConfig(TitanError):
    """A setting that cannot be followed; the message says what to write instead."""


class MasterConfig(Struct, frozen=True, kw_only=True):
    """How one master is run."""

    data: Path
    perm_files: Path
    listen: Address
    name: str
    insecure: bool = False
    """The operator accepts that traffic off this host can be read and changed on its way."""
    token_link: bool = True
    """Leave a link to the token where this account's clients look for it."""
    lost_after_ms: int = WORKER_LOST_AFTER_MS
    disk_reserve_bytes: int = DISK_RESERVE_BYTES
    """Held as a file, for the ends of what has begun when the disk is full."""
    log_bytes: int = LOG_BYTES_PER_ATTEMPT
    """Kept of what an attempt prints, here and at its worker."""
    links_max: int = 2_000
    strangers_max: int = 256
    handshake_timeout_ms: int = HANDSHAKE_TIMEOUT_MS
    inbox_max: int = 10_000
    turn_inputs_max: int = 256
    slow_reader_ms: int = 60_000
    log_patience_ms: int = 30_000
    followers_max: int = 50
    journal_keep_ms: int = 24 * 3_600_000
    """Records that no start needs any more are kept for so long ..."""
    journal_keep_bytes: int = 256 * 1024 * 1024
    """... and no more of them than this."""
    artifact_keep_ms: int = ARTIFACT_KEEP_MS
    """Artifacts that no run needs any more are kept for so long ..."""
    artifacts_bytes: int = ARTIFACTS_BYTES
    """... or less long, where all artifacts together weigh more than this."""
    autoscale: bool = True
    """Whether the queue makes workers spawn others."""
    scale_every_ms: int = SCALE_EVERY_MS
    sibling_idle_ms: int = SIBLING_IDLE_MS
    siblings_per_host: int = SIBLINGS_PER_HOST
    siblings_max: int = SIBLINGS
    accept_loss: int | None = None
    """A person's decision to go on without what a damaged journal said behind this record."""


def parse_duration(text: str) -> int:
    """Milliseconds in ``30s``, ``500ms``, ``2m`` or ``1.5h``."""
    try:
        return durations.parse_duration(text)
    except durations.BadDuration as error:
        raise BadConfig(str(error)) from error


def parse_lost_after(text: str) -> int:
    """Milliseconds after which a silent worker is lost, within what makes sense."""
    least, most = _LOST_AFTER_MS
    value = parse_duration(text)
    if not least <= value <= most:
        raise BadConfig(f"lost-after is {text}: it must be between {least} ms and 24 h")
    return value


def parse_scale_every(text: str) -> int:
    """Milliseconds between two looks at what waits, within what makes sense."""
    return _parse_scale("scale-every", text)


def parse_sibling_idle(text: str) -> int:
    """Milliseconds after which an idle spawned worker is told to leave, within what makes sense."""
    return _parse_scale("sibling-idle", text)


def _parse_scale(name: str, text: str) -> int:
    least, most = _SCALE_MS
    value = parse_duration(text)
    if not least <= value <= most:
        raise BadConfig(f"{name} is {text}: it must be between {least} ms and 24 h")
    return value


def parse_disk_reserve(text: str) -> int:
    """Bytes in ``64MiB``, ``512KiB`` or ``1GiB``, within what makes sense."""
    least, most = _DISK_RESERVE_BYTES
    value = _parse_size(text)
    if not least <= value <= most:
        raise BadConfig(f"disk-reserve is {text}: it must be between 64KiB and 1024GiB")
    return value


def parse_log_cap(text: str) -> int:
    """Bytes to keep of what an attempt prints, within what makes sense."""
    value = _parse_size(text)
    if not LOG_BYTES_PER_ATTEMPT_MIN <= value <= _LOG_CAP_MAX_BYTES:
        raise BadConfig(
            f"log-cap is {text}: it must be between 1MiB (LOG_BYTES_PER_ATTEMPT_MIN) and 1024GiB"
        )
    return value


def _parse_size(text: str) -> int:
    match = _SIZE.match(text.strip())
    if match is None:
        raise BadConfig(f"{text!r} is no size: write a number and KiB, MiB or GiB, such as 64MiB")
    return int(match.group(1)) * _SIZES[match.group(2)]


def parse_keep_journal(text: str) -> int:
    """Milliseconds for which old records are kept, within what makes sense."""
    value = parse_duration(text)
    if value > _KEEP_MAX_MS:
        raise BadConfig(f"keep-journal is {text}: it must be at most 8760h, which is a year")
    return value


def parse_keep_artifacts(text: str) -> int:
    """Milliseconds for which artifacts are kept that no run needs, within what makes sense."""
    value = parse_duration(text)
    if not ARTIFACT_KEEP_MIN_MS <= value <= _KEEP_MAX_MS:
        raise BadConfig(
            f"keep-artifacts is {text}: it must be between 1h (ARTIFACT_KEEP_MIN_MS) and 8760h, "
            "which is a year"
        )
    return value


def parse_artifacts_cap(text: str) -> int:
    """Bytes that artifacts may weigh before those that no run needs go sooner."""
    value = _parse_size(text)
    if not value <= _ARTIFACTS_CAP_MAX_BYTES:
        raise BadConfig(f"artifacts-cap is {text}: it must be at most 1048576GiB")
    return value


def parse_listen(text: str) -> Address:
    """Where to listen: ``host:port``, ``:port`` for loopback, port 0 for any free one."""
    host, colon, port = text.strip().rpartition(":")
    if colon and port == "0":
        return parse_address(f"{host or '127.0.0.1'}:1")._replace(port=0)
    try:
        return parse_address(f"127.0.0.1{text}" if text.startswith(":") else text)
    except BadAddress as error:
        raise BadConfig(str(error)) from error


def default_perm_files(data: Path, cwd: Path) -> Path:
    """``perm_files`` where the master is started, else in its data folder."""
    beside = cwd / "perm_files"
    return beside if beside.is_dir() else data / "perm_files"


def check_listen(config: MasterConfig) -> None:
    """Refuse an address that others can reach, unless that is spelled out."""
    if config.listen.is_loopback or config.insecure:
        return
    raise BadConfig(
        f"{config.listen.host} can be reached from other machines, and this version has no "
        "encryption: tokens stay secret, but everything else on the wire can be read and changed.\n"
        "  only this machine:          titan-master start "
        f"--listen 127.0.0.1:{config.listen.port}\n"
        "  a network that you trust:   titan-master start "
        f"--listen {config.listen} --insecure"
    )
