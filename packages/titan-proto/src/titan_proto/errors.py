"""Everything that can go wrong, grouped by what the caller should do about it.

Operating errors (peer gone, bad request, refused) are these. Programmer errors are not: a broken
invariant ends the process that finds it. Codes are stable on the wire; class names are for Python.
"""

from __future__ import annotations

from msgspec import Struct

from titan_proto.states import OpenEnum


class ErrorCode(OpenEnum):
    """Stable names of refusals, as they travel in ``Error``, ``Refused`` and ``Goodbye``."""

    INVALID_SPEC = "INVALID_SPEC"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    ALREADY_DONE = "ALREADY_DONE"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_LEADER = "NOT_LEADER"
    UNAVAILABLE = "UNAVAILABLE"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    STORAGE_FULL = "STORAGE_FULL"
    UNSUPPORTED = "UNSUPPORTED"
    MALFORMED = "MALFORMED"
    PROTOCOL = "PROTOCOL"
    SUPERSEDED = "SUPERSEDED"
    DUPLICATE_WORKER = "DUPLICATE_WORKER"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    SLOW_READER = "SLOW_READER"
    CANCELLED = "CANCELLED"
    INTERNAL = "INTERNAL"
    UNKNOWN = "UNKNOWN"


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing wrong with a spec: where, what, and what to do."""

    where: str
    """A path into the spec, such as ``jobs[3].dependencies[0]``."""
    message: str
    hint: str = ""
    code: str = ""
    """Stable number for docs search, such as ``Y201``."""


class TitanError(Exception):
    """Root of what Titan raises on purpose."""


class ProtocolError(TitanError):
    """Bytes or calls that the protocol does not allow."""


class LocalProtocolError(ProtocolError):
    """This side misused a connection: a bug here."""


class FrameTooLarge(LocalProtocolError):
    """A message that no frame holds: whoever lists things from outside cannot always know before."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol: close politely with `code`."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.PROTOCOL) -> None:
        super().__init__(message)
        self.code = code


class MalformedBody(ProtocolError):
    """A frame's body could not be decoded; the link may go on."""


class LinkError(TitanError):
    """No answer could be had over a link."""


class ConnectFailed(LinkError):
    """Nobody answered at the address. Retryable."""


class NoToken(LinkError):
    """No token could be found, or the one found must not be used; the message says where."""


class LinkLost(LinkError):
    """The link broke before the answer came. Retryable with the same key."""

    def __init__(self, message: str, goodbye: ErrorCode | None = None) -> None:
        super().__init__(message)
        self.goodbye = goodbye
        """The code of the peer's last words, if it had any."""


class Timeout(LinkError):
    """The answer did not come in time."""


class Refused(LinkError):
    """The peer refused the handshake; trying the same again is of no use."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class RequestError(TitanError):
    """The master understood and said no."""

    code: ErrorCode = ErrorCode.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | None = None,
        details: dict[str, str] | None = None,
        problems: tuple[Problem, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or {}
        self.problems = problems
        if code is not None:
            self.code = code


class InvalidSpec(RequestError):
    """The run asked for is not valid; `problems` lists everything wrong with it."""

    code = ErrorCode.INVALID_SPEC


class NotFound(RequestError):
    """Nothing has that name."""

    code = ErrorCode.NOT_FOUND


class Conflict(RequestError):
    """The same key with other content, or a name that is taken."""

    code = ErrorCode.CONFLICT


class AlreadyDone(RequestError):
    """The thing has ended; its state does not allow this."""

    code = ErrorCode.ALREADY_DONE


class Unauthenticated(RequestError):
    """No valid token."""

    code = ErrorCode.UNAUTHENTICATED


class PermissionDenied(RequestError):
    """This identity may not do that."""

    code = ErrorCode.PERMISSION_DENIED


class NotLeader(RequestError):
    """Another master leads; `details["hint"]` says where, if known."""

    code = ErrorCode.NOT_LEADER


class Unavailable(RequestError):
    """Not now; `details["retry_after_ms"]` says when to try again."""

    code = ErrorCode.UNAVAILABLE


class LimitExceeded(RequestError):
    """A ceiling was met; `details["limit"]` names it."""

    code = ErrorCode.LIMIT_EXCEEDED


class StorageFull(RequestError):
    """The master's disk has no room for new work; the message says how much it wants."""

    code = ErrorCode.STORAGE_FULL


class Unsupported(RequestError):
    """This master does not know that request."""

    code = ErrorCode.UNSUPPORTED


class Malformed(RequestError):
    """The request's body could not be decoded."""

    code = ErrorCode.MALFORMED


class Internal(RequestError):
    """The master failed; its log says more."""

    code = ErrorCode.INTERNAL


_BY_CODE: dict[ErrorCode, type[RequestError]] = {
    kind.code: kind
    for kind in (
        InvalidSpec,
        NotFound,
        Conflict,
        AlreadyDone,
        Unauthenticated,
        PermissionDenied,
        NotLeader,
        Unavailable,
        LimitExceeded,
        StorageFull,
        Unsupported,
        Malformed,
        Internal,
    )
}


def request_error(
    code: ErrorCode,
    message: str,
    details: dict[str, str] | None = None,
    problems: tuple[Problem, ...] = (),
) -> RequestError:
    """The exception that stands for an ``Error`` message; unknown codes stay plain."""
    kind = _BY_CODE.get(code, RequestError)
    return kind(message, code=code, details=details, problems=problems)
