"""Logs of a hosting process: structlog for ours and for Temporal's own, JSON where nobody looks on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from holdfast.activities.secrets import Scrubber
from holdfast.bounds import cut

_TEMPORAL_NAMES = {"workflow_id": "run_id", "activity_type": "activity", "attempt": "attempt"}


def configure(log_format: str = "auto", level: str = "info", secrets: Iterable[tuple[str, str]] = ()) -> None:
    """Send every log of this process to stderr, in one form, without known secrets."""
    root = logging.getLogger()
    root.handlers[:] = [_handler(log_format, secrets)]
    root.setLevel(level.upper())
    for noisy in ("LiteLLM", "httpx", "httpcore", "openai", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def tell(log_format: str, level: str = "info", secrets: Iterable[tuple[str, str]] = ()) -> None:
    """Send Holdfast's own logs to stderr, and leave those of the program around it as they are."""
    ours = logging.getLogger("holdfast")
    ours.handlers[:] = [_handler(log_format, secrets)]
    ours.propagate = False
    ours.setLevel(level.upper())


def _handler(log_format: str, secrets: Iterable[tuple[str, str]]) -> logging.Handler:
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    scrub = Scrubber.of_environment(secrets)
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _temporal_context,
                structlog.processors.format_exc_info,
                lambda logger, name, event: _scrubbed(event, scrub),
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    return handler


def forward_native() -> None:
    """Let the warnings of Temporal's native part go the same way; starts its threads, so not before a fork."""
    core = TelemetryFilter(core_level="WARN", other_level="ERROR")
    forwarded = LogForwardingConfig(logger=logging.getLogger("temporalio.core"))
    told = TelemetryConfig(logging=LoggingConfig(filter=core, forwarding=forwarded))
    Runtime.set_default(Runtime(telemetry=told), error_if_already_set=False)


def _temporal_context(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Take the run's names out of Temporal's nested context."""
    event.pop("temporal_log", None)
    for key in ("temporal_workflow", "temporal_activity"):
        context = event.pop(key, None)
        if isinstance(context, dict):
            for theirs, ours in _TEMPORAL_NAMES.items():
                if theirs in context:
                    event.setdefault(ours, context[theirs])
    return event


def _scrubbed(event: EventDict, scrub: Scrubber) -> EventDict:
    cleaned: dict[str, Any] = {
        key: cut(scrub.text(value), 16_384) if isinstance(value, str) else value for key, value in event.items()
    }
    return cleaned
