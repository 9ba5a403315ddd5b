"""The command line: `holdfast run`, `runs`, `agents`, `dev`, `worker`, `demo`, `setup`, `healthcheck`."""

from __future__ import annotations

from holdfast.client.cli.app import main

__all__ = ["main"]
