"""A worker of somebody else's, which has nothing of ours: `python bare_worker.py ADDRESS TASK_QUEUE JOURNAL`.

It writes one line for each attempt that it begins, with the key by which it tells a repeated call.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

FOR_EVER = 600


def _note() -> activity.Info:
    info = activity.info()
    key = f"{info.workflow_id}:{info.activity_id}"
    line = json.dumps({"type": info.activity_type, "key": key, "attempt": info.attempt})
    with open(sys.argv[3], "a", encoding="utf-8") as journal:
        journal.write(line + "\n")
    return info


@activity.defn(name="Billing.Charge")
async def charge(arguments: dict[str, Any]) -> dict[str, Any]:
    """Charge at once."""
    _note()
    source = {"url": "https://example.org/tariff", "title": "Tariff"}
    return {"charged": arguments["amount"], "sources": [source]}


@activity.defn(name="Billing.Hold")
async def hold(arguments: dict[str, Any]) -> str:
    """Hold for ever at the first attempt, beating or not."""
    info = _note()
    for _ in range(FOR_EVER * 5 if info.attempt == 1 else 0):
        if arguments.get("beats"):
            activity.heartbeat()
        await asyncio.sleep(0.2)
    return f"held at attempt {info.attempt}"


def _nested() -> list[Any]:
    nested: list[Any] = []
    for _ in range(300):
        nested = [nested]
    return nested


@activity.defn(name="odd")
async def odd(arguments: dict[str, Any]) -> Any:
    """Return what no JSON is, or too much of it, or fail."""
    match arguments["kind"]:
        case "bytes":
            return b"\x00\x01"
        case "nothing":
            return None
        case "nan":
            return float("nan")
        case "deep":
            return _nested()
        case "large":
            return "x" * 1_500_000
        case "unreadable failure":
            raise ApplicationError("out of ink", _nested(), non_retryable=True)
        case _:
            raise ApplicationError("out of paper", {"tray": 2}, type="P" * 900, non_retryable=True)


async def main() -> None:
    """Serve until killed."""
    assert not [name for name in sys.modules if name.startswith(("holdfast", "litellm"))]
    client = await Client.connect(sys.argv[1])
    async with Worker(client, task_queue=sys.argv[2], activities=[charge, hold, odd]):
        print(os.getpid(), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
