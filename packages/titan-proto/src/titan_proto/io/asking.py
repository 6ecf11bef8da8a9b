"""What both links share: how a dialler introduces itself, and what an answer means.

Decides nothing about time or sockets. Called by `blocking` and `aio`.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar, cast, get_args

from titan_proto.errors import RemoteProtocolError, request_error
from titan_proto.handshake import FEATURES, SUPPORTED_VERSIONS, Token
from titan_proto.io.entropy import nonce
from titan_proto.messages import AnyMessage, Error, Hello, Request, Role

ReplyT = TypeVar("ReplyT")


def make_hello(token: Token, *, role: Role, software: str, last_term: int = 0) -> Hello:
    """A Hello with a fresh nonce."""
    return Hello(
        versions=SUPPORTED_VERSIONS,
        role=role,
        software=software,
        token_id=token.token_id,
        client_nonce=nonce(),
        features=FEATURES,
        last_term=last_term,
    )


def read_answer(request: Request[ReplyT], message: AnyMessage) -> ReplyT:
    """`message` as the reply to `request`.

    Raises:
        RequestError: the kind that stands for it, if it is an Error.
        RemoteProtocolError: if it is neither that nor the reply the request promises.
    """
    if isinstance(message, Error):
        raise request_error(message.code, message.message, message.details, message.problems)
    if not isinstance(message, reply_type(type(request))):
        raise RemoteProtocolError(
            f"{type(message).__name__} is no answer to {type(request).__name__}"
        )
    return cast("ReplyT", message)


@functools.cache
def reply_type(kind: type[Request[Any]]) -> type:
    """What ``Request[Reply]`` has between its brackets for this request."""
    (base,) = kind.__orig_bases__  # type: ignore[attr-defined]  # set by the class statement
    (reply,) = get_args(base)
    return cast("type", reply)
