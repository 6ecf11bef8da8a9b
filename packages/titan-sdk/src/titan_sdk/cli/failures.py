"""An error → what a person reads, and the program's exit code.

The codes are a promise: 0 done and good, 1 the run or job failed, 2 usage or an invalid pipeline,
3 not found, 4 not permitted, 5 no master, 6 timed out, 7 conflict or the state does not allow it,
8 cancelled, 130 Ctrl-C. Users see what was wrong, why, and what to do next; a traceback only with
`--debug`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from titan_proto.errors import (
    AlreadyDone,
    Conflict,
    ConnectFailed,
    ErrorCode,
    Internal,
    InvalidSpec,
    LimitExceeded,
    LinkLost,
    Malformed,
    NotFound,
    NotLeader,
    NoToken,
    PermissionDenied,
    ProtocolError,
    Refused,
    RequestError,
    StorageFull,
    Timeout,
    TitanError,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from titan_proto.handshake import BadToken
from titan_proto.io.address import BadAddress
from titan_sdk.cli.context import API_VERSION, say
from titan_sdk.cli.sanitize import clean
from titan_sdk.dagstring import DagStringError
from titan_sdk.errors import RunFailed
from titan_sdk.findings import PipelineError
from titan_sdk.packaging import PackagingError

FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
NOT_PERMITTED: Final = 4
NO_MASTER: Final = 5
TIMED_OUT: Final = 6
CONFLICT: Final = 7
CANCELLED: Final = 8
INTERRUPTED: Final = 130

_CODES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (click.UsageError, USAGE),
    (InvalidSpec, USAGE),
    (PackagingError, USAGE),
    (BadAddress, USAGE),
    (NotFound, NOT_FOUND),
    (NoToken, NOT_PERMITTED),
    (BadToken, NOT_PERMITTED),
    (Unauthenticated, NOT_PERMITTED),
    (PermissionDenied, NOT_PERMITTED),
    (Timeout, TIMED_OUT),
    (Conflict, CONFLICT),
    (AlreadyDone, CONFLICT),
    (LimitExceeded, CONFLICT),
    (StorageFull, CONFLICT),
    (Unsupported, CONFLICT),
    (ConnectFailed, NO_MASTER),
    (LinkLost, NO_MASTER),
    (Unavailable, NO_MASTER),
    (NotLeader, NO_MASTER),
    (RunFailed, FAILED),
    (Malformed, FAILED),
    (Internal, FAILED),
)
_REFUSED: Final = {
    ErrorCode.UNAUTHENTICATED: NOT_PERMITTED,
    ErrorCode.PERMISSION_DENIED: NOT_PERMITTED,
    ErrorCode.UNSUPPORTED: CONFLICT,
}
_NEXT: Final[tuple[tuple[type[Exception], str], ...]] = (
    (NoToken, "set TITAN_TOKEN or TITAN_TOKEN_FILE, or run this where the master's .titan/ is"),
    (BadToken, "check TITAN_TOKEN, or the file that TITAN_TOKEN_FILE names"),
    (Timeout, "titan ps   (it goes on)"),
    (PermissionDenied, "use a token that may do this"),
    (Internal, "the master's log says more"),
    (LinkLost, "look whether the master still runs:  titan stats"),
)


class Failure(click.ClickException):
    """An error of a command itself: what happened, what to do, which code."""

    def __init__(self, message: str, code: int, *, hint: str = "", name: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint
        self.name = name


def exit_code(error: BaseException) -> int:
    """The code that stands for an error."""
    if isinstance(error, Failure):
        return error.code
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, Refused):
        return _REFUSED.get(error.code, NO_MASTER)
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return FAILED


def report(error: Exception, args: Sequence[str]) -> int:
    """Tell the user, and return the exit code."""
    code = exit_code(error)
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if "--debug" in args:
        traceback.print_exception(error)
    if _wants_json(args):
        say(json.dumps(_as_json(error, code), ensure_ascii=False))
        return code
    if isinstance(error, click.UsageError):
        error.show(sys.stderr)
        return code
    known = isinstance(error, (TitanError, click.ClickException, OSError))
    # Names that a user typed or a file holds stand in these texts: nothing may drive the terminal.
    if isinstance(error, (PipelineError, DagStringError)):
        say(clean(str(error)))
    elif known:
        say(clean(f"error{_mark(error)}: {_text(error)}"))
        if hint := _hint(error):
            say(clean(f"  try:  {hint}"))
    else:
        say(clean(f"error: an unexpected {type(error).__name__}: {error}"))
        if "--debug" not in args:
            say("  this is a bug in titan; `titan --debug …` shows where")
    return code


def _mark(error: Exception) -> str:
    """The stable code of an error, for searching."""
    if isinstance(error, Failure) and error.name:
        return f"[{error.name}]"
    code = getattr(error, "code", None)
    return f"[{code.value}]" if isinstance(code, ErrorCode) else ""


def _text(error: Exception) -> str:
    if _is_nowhere(error):
        return "the working folder is not there any more, so nothing can be found from it"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, Refused):
        return f"the master refused: {error.reason}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ProtocolError):
        return f"the peer does not speak Titan's protocol: {error}"
    return str(error)


def _is_nowhere(error: Exception) -> bool:
    """Whether it comes of a working folder that was deleted under the command."""
    if not isinstance(error, FileNotFoundError):
        return False
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _hint(error: Exception) -> str:
    if isinstance(error, Failure):
        return error.hint
    if _is_nowhere(error):
        return "cd to a folder that exists, then again"
    return next((hint for kind, hint in _NEXT if isinstance(error, kind)), "")


def _as_json(error: Exception, code: int) -> dict[str, object]:
    body: dict[str, object] = {"message": _text(error), "exitCode": code}
    wire = getattr(error, "code", None)
    if isinstance(wire, ErrorCode):
        body["code"] = wire.value
    if isinstance(error, RequestError) and error.problems:
        body["problems"] = [
            {"where": p.where, "message": p.message, "hint": p.hint, "code": p.code}
            for p in error.problems
        ]
    return {"apiVersion": API_VERSION, "kind": "Error", "error": body}


def _wants_json(args: Sequence[str]) -> bool:
    """Whether the command was asked for JSON; it may have failed before it read its options."""
    own = list(args[: args.index("--")]) if "--" in args else list(args)
    if any(one in {"-ojson", "--output=json"} for one in own):
        return True
    for flag in ("-o", "--output"):
        if flag in own:
            return own[own.index(flag) + 1 : own.index(flag) + 2] == ["json"]
    return os.environ.get("TITAN_FORMAT") == "json"
