"""How a caller reaches the Temporal server: TEMPORAL_* environment or profile, else localhost:7233."""

from __future__ import annotations

import asyncio
from typing import Any

import temporalio.client
from temporalio.client import Plugin
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfigProfile

from holdfast.activities.reading import tolerant
from holdfast.errors import HoldfastError, ServerUnavailable

DEFAULT_ADDRESS = "localhost:7233"
_SECONDS = 2.5


def configured(address: str | None = None, namespace: str | None = None, api_key: str | None = None) -> dict[str, Any]:
    """Return the connection options: what is given here, else TEMPORAL_* variables or profile, else localhost."""
    options = _profile()
    if address is not None:
        options["target_host"] = address
    if namespace is not None:
        options["namespace"] = namespace
    if api_key is not None:
        options |= {"api_key": api_key, "tls": options.get("tls") or True}
    options.setdefault("target_host", DEFAULT_ADDRESS)
    return options


def is_named(address: str | None = None) -> bool:
    """Say whether somebody named a server, here or in the environment or the profile."""
    return address is not None or "target_host" in _profile()


def _profile() -> dict[str, Any]:
    try:
        return dict(ClientConfigProfile.load().to_client_connect_config())
    except Exception as error:  # noqa: BLE001 - its native part raises an error of its own that has no public name
        raise HoldfastError(f"Temporal's configuration can't be read: {' '.join(str(error).split())}") from None


async def connect_embedded(address: str) -> temporalio.client.Client:
    """Connect to a server of our own, whatever the environment says of another's keys and TLS."""
    return await _connected({"target_host": address}, ())


async def connect(
    address: str | None = None,
    namespace: str | None = None,
    *,
    api_key: str | None = None,
    plugins: tuple[Plugin, ...] = (),
) -> temporalio.client.Client:
    """Connect within 2.5 seconds, or raise ServerUnavailable."""
    return await _connected(configured(address, namespace, api_key), plugins)


async def _connected(options: dict[str, Any], plugins: tuple[Plugin, ...]) -> temporalio.client.Client:
    options.setdefault("data_converter", tolerant(pydantic_data_converter))
    connecting = temporalio.client.Client.connect(**options, plugins=plugins)
    try:
        return await asyncio.wait_for(connecting, _SECONDS)
    except TimeoutError:
        raise ServerUnavailable(options["target_host"], f"no answer within {_SECONDS:g} s") from None
    except (RuntimeError, OSError, ValueError) as error:
        raise ServerUnavailable(options["target_host"], _short(error)) from None


def _short(error: Exception) -> str:
    text = str(error)
    return "connection refused" if "refused" in text.lower() else text.splitlines()[0][:120] if text else ""
