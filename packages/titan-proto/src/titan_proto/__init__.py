"""Titan's wire: what two packages must agree on, byte for byte or word for word.

Everything outside ``io/`` is pure: no sockets, no clock, no threads.
"""

from titan_proto.__about__ import __version__

__all__ = ["__version__"]
