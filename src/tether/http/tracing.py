"""A span of OpenTelemetry for each request. This module is imported only if traces are wanted."""

from collections.abc import Callable

from falcon.asgi import Request, Response
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tether.http.middleware import METHODS

TRACEPARENT = "traceparent"
_FAILED = 500  # and higher statuses


class Spans:
    """Starts a span for each request, and ends it with the answer.

    It continues the trace in `traceparent`. It does not contain anything in which a client could
    send a key or an id: no path, no query, no headers (`tracestate` included).
    """

    def __init__(self, tracer: Tracer, route_of: Callable[[str], str | None]) -> None:
        """`route_of` finds the template of a path."""
        self._tracer = tracer
        self._route_of = route_of
        self._propagator = TraceContextTextMapPropagator()

    async def process_request(self, req: Request, resp: Response) -> None:
        parent = req.get_header("Traceparent")
        context = self._propagator.extract({TRACEPARENT: parent}) if parent else None
        req.context.span = self._tracer.start_span("request", context, SpanKind.SERVER)

    async def process_response(
        self, req: Request, resp: Response, resource: object, succeeded: bool
    ) -> None:
        span, context, status = req.context.span, req.context, resp.status_code
        if span.is_recording():
            method = req.method if req.method in METHODS else "_OTHER"
            route = req.uri_template or self._route_of(req.path)
            span.update_name(f"{method} {route}" if route else method)
            found = {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                "url.scheme": req.scheme,
                "client.address": context.client,
                "tether.request_id": context.request_id,
                "tether.partner": context.key.partner_name if context.key else None,
                "tether.error": next(iter(context.rejections), None) if status >= 400 else None,
            }
            span.set_attributes({name: value for name, value in found.items() if value is not None})
            if status >= _FAILED:
                span.set_attribute("error.type", str(status))
                span.set_status(StatusCode.ERROR)
        span.end()
