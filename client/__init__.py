"""The callers: clients, timeline, CLI. Names are loaded when they are first used, so that the CLI starts fast."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.client.diff import RunDiff
    from holdfast.client.runs import AsyncClient
    from holdfast.client.sync import Client
    from holdfast.client.threads import Thread
    from holdfast.client.views import Run, RunSummary

_WHERE = {
    "AsyncClient": "runs",
    "Client": "sync",
    "Run": "views",
    "RunDiff": "diff",
    "RunSummary": "views",
    "Thread": "threads",
}
__all__ = ["AsyncClient", "Client", "Run", "RunDiff", "RunSummary", "Thread"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'holdfast.client' has no attribute {name!r}")
    return getattr(import_module(f"holdfast.client.{_WHERE[name]}"), name)
