"""Titan's master: the mind of a cluster. A pure core decides, thin shells carry."""

from titan_master.__about__ import __version__

__all__ = ["__version__"]
