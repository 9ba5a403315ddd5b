"""OpenTelemetry: spans and metrics of model calls and tool calls, by its conventions for generative AI.

All spans of a run are of one trace, whose id is made of the run's: whoever has started it, through all of its links,
restarts and workers, and without a byte in history. Within a span that somebody else's interceptor has opened they are
that one's children instead. https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from holdfast import ids, wire
from holdfast.agent import Agent
from holdfast.errors import DefinitionError

_FLUSH_SECONDS = 3.0
_MODEL_CALLS = {wire.MODEL_CALL: "chat", wire.CONTEXT_COMPACT: "chat"}
Attributes = dict[str, str | int | float | tuple[str, ...]]


def interceptor(agent: Callable[[], Agent | None]) -> Interceptor:
    """Return what a worker is watched by; `agent` says which agent the activity under way belongs to, if known."""
    _provide()
    return Measured(agent)


def _provide() -> None:
    """Send spans and metrics where the OTEL_* environment says, unless this process has said so already."""
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise DefinitionError("telemetry 'otel' needs the extra of that name: pip install 'holdfast[otel]'") from None
    named = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "holdfast")})
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource=named))


async def flush() -> None:
    """Send what has not been sent, for at most 3 seconds."""
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        force = getattr(provider, "force_flush", None)
        if force is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(asyncio.to_thread(force, int(_FLUSH_SECONDS * 1000)), _FLUSH_SECONDS)


class Measured(Interceptor):
    """Tells of each model call and tool call what it was, how long it took, and what it used."""

    def __init__(self, agent: Callable[[], Agent | None]) -> None:
        meter = metrics.get_meter("holdfast")
        self.agent = agent
        self.seconds = meter.create_histogram("gen_ai.client.operation.duration", "s")
        self.tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}")
        self.cost = meter.create_counter("holdfast.cost", "{USD}")

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap one execution (Temporal's own signature)."""
        info = activity.info()
        ours = info.workflow_type == wire.AGENT_RUN
        known = info.activity_type in _MODEL_CALLS or ids.step_of_call(info.activity_id) is not None
        return _Measuring(next, self) if ours and known else next


class _Measuring(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, measured: Measured) -> None:
        super().__init__(next)
        self._measured = measured

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info, began = activity.info(), time.perf_counter()
        told: Attributes = {"gen_ai.operation.name": _MODEL_CALLS.get(info.activity_type, "execute_tool")}
        agent = self._measured.agent()
        if agent is not None:
            told["gen_ai.agent.name"] = agent.name
        if info.activity_type in _MODEL_CALLS:
            told["gen_ai.request.model"] = str(getattr(input.args[0], "model", "")) if input.args else ""
        else:
            told["gen_ai.tool.name"] = info.activity_type
        about = {**told, "holdfast.run.id": info.workflow_id or "", "holdfast.attempt": info.attempt, **_call(info)}
        what = str(told.get("gen_ai.request.model") or info.activity_type)
        with trace.get_tracer("holdfast").start_as_current_span(
            f"{told['gen_ai.operation.name']} {what}",
            _parent(info),
            attributes=about,
            record_exception=False,  # a traceback may hold anything
            set_status_on_exception=False,
        ) as span:
            try:
                result = await super().execute_activity(input)
            except BaseException as error:
                told["error.type"] = str(getattr(error, "type", None) or type(error).__name__)
                span.set_attribute("error.type", told["error.type"])
                span.set_status(trace.StatusCode.ERROR)
                raise
            else:
                if info.activity_type in _MODEL_CALLS and isinstance(result, Mapping):
                    self._answered(result, told, span)
                return result
            finally:
                self._measured.seconds.record(time.perf_counter() - began, told)

    def _answered(self, result: Mapping[str, Any], told: Attributes, span: trace.Span) -> None:
        """Tell what a Turn or a Compacted, in wire form, says of its use."""
        usage = result.get("usage", {})
        told["gen_ai.response.model"] = str(result.get("model", ""))
        span.set_attribute("gen_ai.response.model", told["gen_ai.response.model"])
        if result.get("finish_reason"):
            span.set_attribute("gen_ai.response.finish_reasons", (str(result["finish_reason"]),))
        for kind in ("input", "output"):
            count = int(usage.get(f"{kind}_tokens", 0))
            span.set_attribute(f"gen_ai.usage.{kind}_tokens", count)
            self._measured.tokens.record(count, {**told, "gen_ai.token.type": kind})
        cost = float(usage.get("cost_usd", 0.0))
        span.set_attribute("holdfast.cost_usd", cost)
        self._measured.cost.add(cost, told)


def _parent(info: activity.Info) -> Context | None:
    """Return the run's own trace; None where a span is open already, which is then the parent."""
    if trace.get_current_span().get_span_context().is_valid:
        return None
    run = hashlib.sha256(f"{info.namespace}\0{info.workflow_id}".encode()).digest()
    context = trace.SpanContext(
        trace_id=int.from_bytes(run[:16]),
        span_id=int.from_bytes(run[16:24]),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(context))


def _call(info: activity.Info) -> Attributes:
    step = ids.step_of_call(info.activity_id)
    return {} if step is None else {"gen_ai.tool.call.id": info.activity_id, "holdfast.step": step}
