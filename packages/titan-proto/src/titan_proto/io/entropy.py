"""The only dice of this package: ids, nonces, keys.

Called by shells alone; a core is handed what was drawn here.
"""

from __future__ import annotations

import secrets
import time
from typing import Final

from titan_proto.limits import NONCE_BYTES

_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_DIGITS: Final = 11
_DICE_DIGITS: Final = 5


def new_id() -> str:
    """An id of 16 characters; ids sort as text in the order in which they were made.

    Microseconds first, then 25 random bits: even two processes that draw in the same microsecond
    hardly meet.
    """
    now_us = time.time_ns() // 1_000
    dice = secrets.randbits(5 * _DICE_DIGITS)
    return _base32(now_us, _TIME_DIGITS) + _base32(dice, _DICE_DIGITS)


def nonce() -> bytes:
    """What a handshake needs fresh from each side."""
    return secrets.token_bytes(NONCE_BYTES)


def new_key() -> str:
    """64 hexadecimal digits nobody can guess: the secret of a token, the key of a submission."""
    return secrets.token_hex(32)


def _base32(number: int, digits: int) -> str:
    return "".join(_DIGITS[number >> 5 * place & 31] for place in range(digits - 1, -1, -1))
