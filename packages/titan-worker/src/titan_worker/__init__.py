"""Titan's worker: executes attempts on one host, as processes of that host.

Its mind is ``core/`` (pure); everything else here is a shell round it.
"""

from titan_worker.__about__ import __version__

__all__ = ["__version__"]
