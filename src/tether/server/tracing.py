"""Traces by OpenTelemetry (the extra `otel`), if its standard variables OTEL_* ask for them.

Otherwise the library is not imported.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING

import structlog

from tether.version import version

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

log = structlog.get_logger()

PROTOCOL = "http/protobuf"
LAST_SPANS_S = 3.0  # for waiting spans at the end of the process


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the variables name an exporter, or an endpoint for one."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if exporter := environment.get("OTEL_TRACES_EXPORTER", "").strip():
        return exporter != "none"
    return any(
        environment.get(name)
        for name in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    )


def hindrance(environment: Mapping[str, str]) -> str | None:
    """Why Tether cannot make the wanted traces; None if it can."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if exporter != "otlp":
        return f"OTEL_TRACES_EXPORTER={exporter}: there is only otlp."
    protocol = (
        environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or PROTOCOL
    )
    if protocol != PROTOCOL:
        return f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: there is only {PROTOCOL}."
    return None


@asynccontextmanager
async def tracing() -> AsyncIterator["Tracer | None"]:
    """The tracer, which works during the block; None if no traces are wanted.

    If they cannot be made, the server logs why and works without: the variables may be for other
    programs on this machine.
    """
    why = hindrance(os.environ) if is_wanted(os.environ) else ""
    if why is None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            why = f"They need {error.name}: pip install '.[otel]' in Tether's folder."
    if why is not None:
        if why:
            log.warning("no traces", cause=why)
        yield None
        return
    ours = Resource.create({"service.name": "tether", "service.version": version()})
    # It does not wait for the collector: it drops spans that do not fit into its queue.
    provider = TracerProvider(
        resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield provider.get_tracer("tether", version())
    finally:
        # A daemon, because an unreachable collector must not delay the end of the process.
        ending = Thread(target=provider.shutdown, daemon=True)
        with suppress(RuntimeError):  # no thread can be started any more
            ending.start()
            await asyncio.to_thread(ending.join, LAST_SPANS_S)
