"""Traces: a span for each request at a real receiver of OTLP, and none unless asked for."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import Server
from tests.services import free_port
from tests.wire import Partner, Wire, event, memory_mb, pid_of, run, until
from tether.server.tracing import is_wanted, unsupported

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "50"}
FEW = {"OTEL_BSP_MAX_QUEUE_SIZE": "100"}


class Collector:
    """A receiver of traces by OTLP over HTTP, which keeps them."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.bytes = b""
        self.headers: dict[str, str] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                collector.headers = {name.lower(): one for name, one in self.headers.items()}
                collector.bytes += body
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *words: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stops the receiver."""
        self._server.shutdown()
        self._server.server_close()

    def spans(self) -> list[Any]:
        """All spans."""
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resource(self) -> dict[str, Any]:
        """The attributes of the resource to which the spans belong."""
        return attributes(self.requests[0].resource_spans[0].resource)


def attributes(of: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in of.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def test_each_request_is_a_span_that_says_whose_it_was_and_never_the_key(
    new_server: Callable[..., Server], collector: Collector
) -> None:
    server = new_server(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SERVICE_NAME="tether-at-night",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test", **SOON,
        OTEL_EXPORTER_OTLP_HEADERS="authorization=secret", OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
    )  # fmt: skip
    key = server.key("acme")
    parent = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": f"acme={key}"}
    with server.client(key) as client:
        assert client.put("/chargers/C1", json={"chargePowers": [11]}, headers=parent).is_success
        refused = client.post("/events", content=event(1), headers={"X-Request-Id": "mine"})
        assert refused.status_code == 409
        assert client.get(f"/chargers/{key}?cursor={key}").status_code == 404
        assert client.get("/nowhere").status_code == 404
        assert client.get("/chargers", headers={"x-api-key": "none"}).status_code == 403
        assert client.get("/chargers", headers={"traceparent": "x" * 10_000}).status_code == 200
        assert client.post("/events/bulk", content=event(1)).status_code == 200
    run(until(lambda: len(collector.spans()) >= 7))
    assert is_loaded(server)
    put, post, get, nowhere, stranger, listed, bulk = collector.spans()

    assert put.name == "PUT /chargers/{id}"
    assert (put.trace_id.hex(), put.parent_span_id.hex()) == (TRACE, CALLER)
    assert put.kind == put.SPAN_KIND_SERVER
    assert put.end_time_unix_nano > put.start_time_unix_nano
    found = attributes(put)
    request_id = found.pop("tether.request_id")
    assert found == {
        "http.request.method": "PUT",
        "http.route": "/chargers/{id}",
        "http.response.status_code": 201,
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "tether.partner": "acme",
    }
    run(until(lambda: any(request_id in line for line in server.log)))
    assert attributes(post)["tether.request_id"] == "mine"
    assert attributes(post)["tether.error"] == "vehicle-unknown"
    assert post.status.code == post.status.STATUS_CODE_UNSET
    assert not post.parent_span_id
    assert (get.name, attributes(get)["tether.error"]) == ("GET /chargers/{id}", "not-found")
    assert (nowhere.name, "http.route" in attributes(nowhere)) == ("GET", False)
    assert stranger.name == "GET /chargers"
    assert "tether.partner" not in attributes(stranger)
    assert not listed.parent_span_id
    assert bulk.name == "POST /events/bulk"
    assert key.encode() not in collector.bytes
    assert key[9:].encode() not in collector.bytes
    assert collector.resource().items() >= {
        ("service.name", "tether-at-night"), ("deployment.environment", "test"),
    }  # fmt: skip
    assert collector.headers["authorization"] == "secret"
    assert server.stop() == 0
    assert server.failures() == []


def test_what_waits_is_sent_before_the_end_also_by_workers_and_a_sampler_is_heeded(
    new_server: Callable[..., Server],
    new_postgres_database: Callable[[], str],
    collector: Collector,
) -> None:
    options = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces"}
    server = new_server("--workers", "2", database=new_postgres_database(), **options)
    for _ in range(20):
        with server.client("none") as client:  # whichever worker answers
            assert client.get("/health").status_code == 200
    assert server.stop() == 0
    assert len(collector.spans()) == 20
    assert collector.resource()["service.name"] == "tether"

    server = new_server(OTEL_TRACES_SAMPLER="always_off", **options)
    with server.client("none") as client:
        assert client.get("/health").status_code == 200
    assert server.stop() == 0
    assert len(collector.spans()) == 20


def test_a_collector_that_is_away_or_stands_still_delays_nobody(
    new_server: Callable[..., Server],
) -> None:
    async def ask(partner: Partner) -> None:
        wire = await Wire.to(partner.server)
        for number in range(600):  # more than may wait for the collector
            assert (await wire.ask(partner.post(number))).status == 201

    with create_server(("127.0.0.1", 0)) as silent:
        for port in (free_port(), silent.getsockname()[1]):
            endpoint = f"http://127.0.0.1:{port}"
            server = new_server(
                "--log-level", "warning", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **SOON, **FEW
            )
            partner = Partner(server)
            run(ask(partner))
            assert memory_mb(server) < 150
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 30
            assert all(line.startswith("{") for line in server.log)
            assert not any(partner.key in line for line in server.log)


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_the_standard_variables_switch_them_on(variables: dict[str, str], wanted: bool) -> None:
    assert is_wanted(variables) == wanted
    assert unsupported(variables) is None or not wanted


@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({}, ""),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "there is only otlp"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "there is only http/protobuf"),
    ],
)
def test_without_them_nothing_is_loaded_and_what_cannot_be_had_is_said(
    new_server: Callable[..., Server], variables: dict[str, str], cause: str
) -> None:
    server = new_server(**variables)
    with server.client("none") as client:
        assert client.get("/health").status_code == 200
    assert not is_loaded(server)
    assert server.stop() == 0
    told = [line for line in server.log if '"no traces"' in line]
    assert len(told) == bool(cause)
    assert all(cause in line for line in told)


def is_loaded(server: Server) -> bool:
    """Whether the server has the part of protobuf that is a library of C."""
    return "_upb" in Path(f"/proc/{pid_of(server)}/maps").read_text()
