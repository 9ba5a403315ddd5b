"""How a caller reaches the Temporal server: TEMPORAL_* environment or profile, else localhost:7233."""

from __future__ import annotations

import asyncio
from typing import Any

import temporalio.client
from temporalio.client import Plugin
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfigProfile

from holdfast.errors import ServerUnavailable

DEFAULT_ADDRESS = "localhost:7233"
_SECONDS = 2.5


def configured(address: str | None = None, namespace: str | None = None, api_key: str | None = None) -> dict[str, Any]:
    """Return the connection options: what is given here, else TEMPORAL_* variables or profile, else localhost."""
    options: dict[str, Any] = dict(ClientConfigProfile.load().to_client_connect_config())
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
    return address is not None or "target_host" in ClientConfigProfile.load().to_client_connect_config()


async def connect(
    address: str | None = None,
    namespace: str | None = None,
    *,
    api_key: str | None = None,
    plugins: tuple[Plugin, ...] = (),
) -> temporalio.client.Client:
    """Connect within 2.5 seconds, or raise ServerUnavailable."""
    options = configured(address, namespace, api_key)
    options.setdefault("data_converter", pydantic_data_converter)
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
