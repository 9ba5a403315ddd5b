"""The search attributes that runs write: registered where we may, and done without where we may not."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from holdfast import wire
from holdfast.activities.log import get_logger

_log = get_logger("holdfast.attributes")
_TYPES = {
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "Double": IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE,
    "Int": IndexedValueType.INDEXED_VALUE_TYPE_INT,
}
_WANTED = {name: _TYPES[kind] for name, kind in wire.SEARCH_ATTRIBUTES.items()}
_PASSING = (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.ALREADY_EXISTS)
"""What a server says that is on its way up or down, or that another worker has just told the same."""
_RPC = timedelta(seconds=5)
_REST_SECONDS = 0.2


class _Unusable(Exception):
    """The attributes can't be used, and why."""


async def register(client: Client, *, usable_within: float = 10.0) -> bool:
    """Register what is missing, and say whether all of it can be used; why not is logged, once.

    A server learns of new attributes (of another worker's, too) with a delay of its own, so this waits until a search
    by all of them is taken; and it asks a server again that is unavailable. Both together take at most `usable_within`
    seconds.
    """
    try:
        async with asyncio.timeout(usable_within):
            missing = await _add_missing(client)
            await _until_usable(client)
    except _Unusable as error:
        _log.warning("search_attributes.unusable", reason=str(error))
        return False
    except RPCError as error:
        _log.warning(
            "search_attributes.unusable",
            reason=error.message,
            mend="run 'holdfast setup' as an administrator",
        )
        return False
    except TimeoutError:
        _log.warning("search_attributes.unusable", reason="the server does not take them yet", mend="start again later")
        return False
    if missing:
        _log.info("search_attributes.registered", names=missing)
    return True


async def _add_missing(client: Client) -> list[str]:
    listing = ListSearchAttributesRequest(namespace=client.namespace)
    while True:
        try:
            listed = await client.operator_service.list_search_attributes(listing, timeout=_RPC)
            there = dict(listed.custom_attributes)
            wrong = sorted(name for name, kind in _WANTED.items() if name in there and there[name] != kind)
            if wrong:
                raise _Unusable(f"registered with another type: {', '.join(wrong)}")
            missing = {name: kind for name, kind in _WANTED.items() if name not in there}
            if missing:
                adding = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
                await client.operator_service.add_search_attributes(adding, timeout=_RPC)
            return sorted(missing)
        except RPCError as error:
            if not _passes(error):
                raise
        await asyncio.sleep(_REST_SECONDS)


def _passes(error: RPCError) -> bool:
    # A connection that breaks under a call has no status of its own.
    broken = error.status == RPCStatusCode.UNKNOWN and "transport" in error.message
    return broken or error.status in _PASSING


async def _until_usable(client: Client) -> None:
    query = " AND ".join(f"{name} IS NULL" for name in _WANTED)
    while True:
        try:
            await client.count_workflows(query, rpc_timeout=_RPC)
            return
        except RPCError as error:
            if error.status == RPCStatusCode.PERMISSION_DENIED:
                return  # this worker may not search; that says nothing of what it may write
        await asyncio.sleep(_REST_SECONDS)
