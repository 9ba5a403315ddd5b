"""What a running tool may know: of its call, and of the run that calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.calls import RunContext


@dataclass(frozen=True)
class ToolContext:
    """What a running tool may know of its call; a parameter annotated with it is filled in, unseen by the model."""

    run_id: str
    call_id: str
    attempt: int = 1
    """The attempt under way, from 1."""
    idempotency_key: str = ""
    """The same for every attempt of one call: hand it to whatever must not happen twice."""
    last_heartbeat: tuple[Any, ...] = ()
    """What an earlier attempt last gave to `heartbeat`: where to go on from."""
    _about: Callable[[], RunContext] | None = field(default=None, repr=False, compare=False)
    _beat: Callable[..., None] | None = field(default=None, repr=False, compare=False)
    _cancelled: Callable[[], bool] | None = field(default=None, repr=False, compare=False)

    def heartbeat(self, *details: Any) -> None:
        """Record at most 64 KB of JSON that a later attempt finds in `last_heartbeat`; liveness needs no call."""
        if self._beat is not None:
            self._beat(*details)

    @property
    def metadata(self) -> dict[str, Any]:
        """The run's metadata, as whoever started it gave it. RuntimeError where it is larger than 16 KB and the run has
        many links: only its first then knows it, unless a tool takes a secret."""
        known = self._about().metadata if self._about is not None else {}
        if known is None:
            raise RuntimeError("the run's metadata is too large to be known in this link of the run")
        return dict(known)

    @property
    def agent_name(self) -> str:
        """The name of the agent that called the tool."""
        return self._about().agent if self._about is not None else ""

    @property
    def cancelled(self) -> bool:
        """True once the run wants this call stopped: return or raise soon."""
        return self._cancelled is not None and self._cancelled()
