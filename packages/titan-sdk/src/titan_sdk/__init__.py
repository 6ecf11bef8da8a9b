"""Titan for programs: submit runs, wait for them, read their logs.

    from titan_sdk import TitanClient, TitanJob

Names are loaded when first used, so that `titan --version` need not load the whole client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from titan_sdk.__about__ import __version__

if TYPE_CHECKING:
    from titan_sdk.client import TitanClient as TitanClient
    from titan_sdk.errors import InvalidSpec as InvalidSpec
    from titan_sdk.errors import NoMaster as NoMaster
    from titan_sdk.errors import NotFound as NotFound
    from titan_sdk.errors import PackagingError as PackagingError
    from titan_sdk.errors import PipelineError as PipelineError
    from titan_sdk.errors import RunFailed as RunFailed
    from titan_sdk.errors import Timeout as Timeout
    from titan_sdk.errors import TitanError as TitanError
    from titan_sdk.jobs import TitanGate as TitanGate
    from titan_sdk.jobs import TitanJob as TitanJob
    from titan_sdk.jobs import TitanService as TitanService
    from titan_sdk.run import Run as Run

_HOMES = {
    "TitanClient": "client",
    "TitanGate": "jobs",
    "TitanJob": "jobs",
    "TitanService": "jobs",
    "Run": "run",
    "TitanError": "errors",
    "InvalidSpec": "errors",
    "NoMaster": "errors",
    "NotFound": "errors",
    "PackagingError": "errors",
    "PipelineError": "errors",
    "RunFailed": "errors",
    "Timeout": "errors",
}

__all__ = [
    "InvalidSpec",
    "NoMaster",
    "NotFound",
    "PackagingError",
    "PipelineError",
    "Run",
    "RunFailed",
    "Timeout",
    "TitanClient",
    "TitanError",
    "TitanGate",
    "TitanJob",
    "TitanService",
    "__version__",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
