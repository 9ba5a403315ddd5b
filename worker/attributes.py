"""The search attributes that runs write: registered where we may, and done without where we may not."""

from __future__ import annotations

import asyncio

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError

from holdfast import wire
from holdfast.activities.log import get_logger

_log = get_logger("holdfast.attributes")
_TYPES = {
    "Keyword": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "Double": IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE,
    "Int": IndexedValueType.INDEXED_VALUE_TYPE_INT,
}
_WANTED = {name: _TYPES[kind] for name, kind in wire.SEARCH_ATTRIBUTES.items()}


async def register(client: Client, *, usable_within: float = 10.0) -> bool:
    """Register what is missing, and say whether all of it can be used; why not is logged, once.

    A server learns of new attributes with a delay of its own, so this waits until a search by one of them is taken.
    """
    try:
        listed = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
        there = dict(listed.custom_attributes)
        wrong = sorted(name for name, kind in _WANTED.items() if name in there and there[name] != kind)
        if wrong:
            _log.warning("search_attributes.unusable", reason="registered with another type", names=wrong)
            return False
        missing = {name: kind for name, kind in _WANTED.items() if name not in there}
        if missing:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
            )
            await asyncio.wait_for(_usable(client), usable_within)
            _log.info("search_attributes.registered", names=sorted(missing))
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
    return True


async def _usable(client: Client) -> None:
    query = " AND ".join(f"{name} IS NULL" for name in _WANTED)
    while True:
        try:
            await client.count_workflows(query)
            return
        except RPCError:
            await asyncio.sleep(0.2)
