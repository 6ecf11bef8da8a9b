"""Where the master is, and with which token to speak to it.

Decides the order in which flags, environment and files are asked. It reads small files, opens no
socket and writes nothing. Called by the SDK, the worker and the dashboard when they start, and by
the master for the name of the file under which others find its token.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from titan_proto.errors import NoToken, TitanError
from titan_proto.limits import DEFAULT_PORT

SCHEME: Final = "titan://"
FOLDER: Final = ".titan"
"""A project's folder of Titan's files, found from any folder below it."""
_LOOPBACK: Final = "127.0.0.1"
_LOOPBACK_NAMES: Final = frozenset({"localhost", "ip6-localhost", "::1", _LOOPBACK})
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class BadAddress(TitanError):
    """A text that is meant to be an address and is not."""


class Address(NamedTuple):
    """Where a master listens."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in _LOOPBACK_NAMES or self.host.startswith("127.")


def parse_address(text: str) -> Address:
    """The address in ``titan://host:port``, ``host:port`` or ``host``; IPv6 in brackets."""
    rest = text.strip()
    if rest.startswith(SCHEME):
        rest = rest[len(SCHEME) :].rstrip("/")
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise _bad(text)
        port = tail[1:] if tail else str(DEFAULT_PORT)
    elif rest.count(":") > 1:
        host, port = rest, str(DEFAULT_PORT)
    else:
        host, colon, port = rest.partition(":")
        port = port if colon else str(DEFAULT_PORT)
    if not host or any(mark in host for mark in "/@ \t\n\0"):
        raise _bad(text)
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65_535):
        raise _bad(text)
    return Address(host, int(port))


def find_master(explicit: str | None, environ: Mapping[str, str], cwd: Path) -> Address:
    """The master to speak to: the flag, ``TITAN_MASTER``, the nearest ``.titan/``, the default."""
    for text in (explicit, environ.get("TITAN_MASTER")):
        if text:
            return parse_address(text)
    for folder in _folders(cwd):
        text = _read(folder / "address")
        if text:
            return parse_address(text)
    return Address(_LOOPBACK)


def find_token(address: Address, environ: Mapping[str, str], cwd: Path) -> str:
    """The text of the token for that master.

    ``TITAN_TOKEN``, then the file that ``TITAN_TOKEN_FILE`` names, then the nearest
    ``.titan/token`` that is not another master's, then what a master of this account on this
    address has left.

    Raises:
        NoToken: none of them has one, or it lies in a file that others may read.
    """
    text = environ.get("TITAN_TOKEN", "").strip()
    if text:
        return text
    named = environ.get("TITAN_TOKEN_FILE", "")
    if named:
        path = Path(named).expanduser()
        held = read_token_file(path)
        if held is None:
            raise NoToken(f"TITAN_TOKEN_FILE names {path}, which cannot be read")
        return held
    left = token_link(address, environ)
    near = (folder / "token" for folder in _folders(cwd) if not _is_of_another(folder, address))
    for path in (*near, left):
        held = read_token_file(path)
        if held is not None:
            return held
    raise NoToken(
        f"no token for the master at {address}: neither TITAN_TOKEN nor TITAN_TOKEN_FILE is set, "
        f"there is no {FOLDER}/token of it here or above, and no {left}. "
        "The master's own lies in its data folder."
    )


def token_link(address: Address, environ: Mapping[str, str]) -> Path:
    """Where a master that listens there lets its own account find its token."""
    home = environ.get("HOME") or str(Path.home())
    state = environ.get("XDG_STATE_HOME") or f"{home}/.local/state"
    host = _LOOPBACK if address.is_loopback else address.host
    return Path(state) / "titan" / f"{host}-{address.port}.token"


def read_token_file(path: Path) -> str | None:
    """What the file holds; None if there is no such file or this account may not read it.

    Raises NoToken for an empty file, and for one that the group or others may read or write.
    """
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = file.read(4096).strip()
    except OSError:
        return None
    if mode & _OTHERS:
        raise NoToken(
            f"{path} may be read or written by others (mode {mode:04o}): "
            f"a token must be its owner's alone; chmod 600 {path}"
        )
    if not text:
        raise NoToken(f"{path} is empty, it should hold a token")
    return text


def _folders(cwd: Path) -> Iterator[Path]:
    for folder in (cwd, *cwd.parents):
        found = folder / FOLDER
        if found.is_dir():
            yield found


def _is_of_another(folder: Path, address: Address) -> bool:
    """Whether a master's folder says that its master listens elsewhere.

    Only another port is a sure sign: a master that listens on every interface notes one address and
    is asked for by any other one of its machine.
    """
    text = _read(folder / "address")
    try:
        return bool(text) and parse_address(text).port != address.port
    except BadAddress:
        return False


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _bad(text: str) -> BadAddress:
    return BadAddress(f"{text!r} is no address: expected host, host:port or titan://host:port")
