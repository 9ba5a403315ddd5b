"""The border to Temporal's server: what it answers to a call, as Holdfast's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.service import RPCError, RPCStatusCode

from holdfast import wire
from holdfast.errors import HoldfastError, RunNotFound, ServerUnavailable

_GONE = (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED)
"""The SDK has tried again for about 10 s; CANCELLED is its own word for a call that had no answer within 30 s."""
_REFUSED = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED)
_UNKNOWN = (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT)


@contextmanager
def translated(client: Client, run_id: str | None = None) -> Iterator[None]:
    """Raise Holdfast's error for a call that fails; with a run id, also for an id that the server doesn't know."""
    try:
        yield
    except RPCError as error:
        raise translate(error, client.service_client.config.target_host, client.namespace, run_id) from None


def translate(error: RPCError, address: str, namespace: str, run_id: str | None = None) -> Exception:
    """Return the error that says what to do; one that we know nothing better for stays as it is."""
    said = error.message.partition("\n")[0]
    if error.status in _GONE:
        return ServerUnavailable(address, said)
    if error.status in _REFUSED:
        return HoldfastError(f"the Temporal server at {address} refuses the call: {said}")
    if error.status == RPCStatusCode.NOT_FOUND and said.lower().startswith("namespace "):
        return HoldfastError(f"there is no namespace {namespace!r} at {address}: set TEMPORAL_NAMESPACE")
    if error.status in _UNKNOWN and run_id is not None:
        return RunNotFound(run_id)
    return error


async def describe(client: Client, run_id: str) -> WorkflowExecutionDescription:
    """Return what the server says of a run at once; RunNotFound for a workflow of another type, too."""
    with translated(client, run_id):
        description = await client.get_workflow_handle(run_id).describe()
    if description.workflow_type != wire.AGENT_RUN:
        raise RunNotFound(run_id)
    return description
