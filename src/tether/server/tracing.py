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
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

log = structlog.get_logger()

PROTOCOL = "http/protobuf"
SHUTDOWN_TIMEOUT_S = 3.0  # to send the last spans


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the variables name an exporter or an endpoint."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if exporter := environment.get("OTEL_TRACES_EXPORTER", "").strip():
        return exporter != "none"
    return any(
        environment.get(name)
        for name in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    )


def unsupported(environment: Mapping[str, str]) -> str | None:
    """The setting that Tether does not support, if there is one."""
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
    """The tracer for the block; None without traces.

    Problems are only logged, because the variables may be set for a whole machine.
    """
    provider = _provider() if is_wanted(os.environ) else None
    if provider is None:
        yield None
        return
    try:
        yield provider.get_tracer("tether", version())
    finally:
        # A daemon thread: a collector that does not answer must not delay the end of the process.
        ending = Thread(target=provider.shutdown, daemon=True)
        with suppress(RuntimeError):  # no thread can be started any more
            ending.start()
            await asyncio.to_thread(ending.join, SHUTDOWN_TIMEOUT_S)


def _provider() -> "TracerProvider | None":
    problem = unsupported(os.environ)
    if problem is None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            problem = f"They need {error.name}: pip install '.[otel]' in Tether's folder."
    if problem is not None:
        log.warning("no traces", cause=problem)
        return None
    ours = Resource.create({"service.name": "tether", "service.version": version()})
    # It does not wait for the collector. If its queue is full, it drops spans.
    provider = TracerProvider(
        resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
