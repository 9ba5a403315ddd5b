"""The process: composition root, settings, embedded server, Runner. Names are loaded when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.worker.config import RunnerConfig
    from holdfast.worker.plugin import HoldfastPlugin
    from holdfast.worker.runner import Runner
    from holdfast.worker.settings import Settings

_WHERE = {"HoldfastPlugin": "plugin", "Runner": "runner", "RunnerConfig": "config", "Settings": "settings"}
__all__ = ["HoldfastPlugin", "Runner", "RunnerConfig", "Settings"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'holdfast.worker' has no attribute {name!r}")
    return getattr(import_module(f"holdfast.worker.{_WHERE[name]}"), name)
