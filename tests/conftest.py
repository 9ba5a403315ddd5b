"""One embedded Temporal server per session of pytest, shared by its parallel processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.activities._litellm import ENVIRONMENT
from tests.support.browser import VARIABLES, pytest_ignore_collect, pytest_sessionstart, pytest_terminal_summary

__all__ = ["pytest_ignore_collect", "pytest_sessionstart", "pytest_terminal_summary"]

# Tests say themselves where Temporal is: nothing of the caller's environment may lead them elsewhere.
for _name in [name for name in os.environ if name.startswith(("TEMPORAL_", "HOLDFAST_")) and name not in VARIABLES]:
    del os.environ[_name]
os.environ["TEMPORAL_CONFIG_FILE"] = os.devnull
# What litellm reads must be there for the whole session, whichever test it is that first imports it.
os.environ.update(ENVIRONMENT)

_SERVER = pytest.StashKey[Any]()


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    from holdfast.worker.server import EmbeddedServer

    config.stash[_SERVER] = EmbeddedServer.start(None, port=0, ui_port=0)


def pytest_configure_node(node: Any) -> None:
    server = node.config.stash[_SERVER]
    node.workerinput["address"], node.workerinput["ui_url"] = server.address, server.ui_url


def pytest_unconfigure(config: pytest.Config) -> None:
    server = config.stash.get(_SERVER, None)
    if server is not None:
        server.stop()


def _said(config: pytest.Config, name: str) -> str:
    given = getattr(config, "workerinput", None)
    return str(given[name] if given is not None else getattr(config.stash[_SERVER], name))


@pytest.fixture(scope="session")
def address(pytestconfig: pytest.Config) -> str:
    """Where the session's Temporal server answers."""
    return _said(pytestconfig, "address")


@pytest.fixture(scope="session")
def ui_url(pytestconfig: pytest.Config) -> str:
    """Where the session's Temporal UI answers."""
    return _said(pytestconfig, "ui_url")


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Leave the environment as it was."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
