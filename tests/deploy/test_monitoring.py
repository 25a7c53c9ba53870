"""Prometheus with the rules, and the queries of the dashboard on metrics of a real server."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from tests.conftest import Server
from tests.debian import program
from tests.deploy.files import DEPLOY, ROOT, replaced
from tests.services import free_port
from tests.test_docs import anchor
from tests.wire import Partner

FOLDER = DEPLOY / "prometheus"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "tether.rules.yaml").read_text())["groups"][
    0
]["rules"]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "tether.json").read_text())
QUERIES = [
    (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]
]


def promtool(*words: str | Path) -> None:
    done = subprocess.run(
        [program("promtool", "prometheus"), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_alert_when_they_have_to_and_only_then() -> None:
    promtool("check", "config", FOLDER / "prometheus.yaml")
    promtool("test", "rules", FOLDER / "tether.rules.test.yaml")


def test_each_alert_is_tested_both_ways_and_leads_to_the_runbook() -> None:
    tests = yaml.safe_load((FOLDER / "tether.rules.test.yaml").read_text())["tests"]
    tried = {
        (rule["alertname"], bool(rule["exp_alerts"]))
        for test in tests
        for rule in test["alert_rule_test"]
    }
    assert tried == {(rule["alert"], fires) for rule in RULES for fires in (True, False)}
    for rule in RULES:
        path, _, heading = rule["annotations"]["runbook"].partition("#")
        sections = re.split(r"^## ", (ROOT / path).read_text(), flags=re.MULTILINE)
        (section,) = (one for one in sections if anchor(one.partition("\n")[0]) == heading)
        assert f"`{rule['alert']}`" in section, rule["annotations"]["runbook"]


def test_rules_and_dashboard_name_metrics_that_are_described() -> None:
    described = (ROOT / "docs" / "operations.md").read_text()
    for text in [*(rule["expr"] for rule in RULES), *(query for _, query in QUERIES)]:
        for name in re.findall(r"tether_[a-z_]+", text):
            assert f"`{re.sub('_(total|count|sum|bucket)$', '', name)}`" in described


@pytest.fixture(scope="module")
def site(
    new_postgres_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Server]]:
    """A server on each engine, with few connections."""
    file = tmp_path_factory.mktemp("site") / "tether.db"
    options = ["--max-connections", "12", "--metrics-by-partner"]
    servers = [Server(place, options).start() for place in (str(file), new_postgres_database())]
    yield servers
    for server in servers:
        assert server.stop() == 0


@pytest.fixture(scope="module")
def prometheus(site: list[Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus with the files of `deploy/`, which scrapes every half second."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    nodes = ", ".join(f'"{urlsplit(one.url).netloc}"' for one in site)
    text = (FOLDER / "prometheus.yaml").read_text()
    changes = {'"10.0.0.1:9100", "10.0.0.2:9100"': nodes, "15s": "500ms"}
    (folder / "prometheus.yaml").write_text(replaced(text, changes))
    (folder / "tether.rules.yaml").write_text((FOLDER / "tether.rules.yaml").read_text())
    process = subprocess.Popen(
        [
            program("prometheus"), f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


def traffic(partner: Partner) -> None:
    """Sends good and refused events, reads, and opens too many connections."""
    event = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}
    assert partner.client.post("/events", json=event).status_code == 201
    assert partner.client.post("/events", json={**event, "chargerId": "C9"}).status_code == 409
    assert partner.client.get("/sessions").status_code == 200
    many = [httpx.Client(base_url=partner.server.url) for _ in range(14)]
    statuses = {one.get("/ready").status_code for one in many}
    assert 503 in statuses
    for one in many:
        one.close()


def asked(prometheus: str, query: str) -> list[Any]:
    """The answer of Prometheus to a query of the dashboard, as Grafana sends it."""
    for name, value in {
        "$__rate_interval": "1m",
        "$job": "tether",
        "$instance": ".*",
    }.items():
        query = query.replace(name, value)
    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", answer
    return [one for one in answer["data"]["result"] if one["value"][1] != "NaN"]


def test_every_query_of_the_dashboard_has_an_answer(site: list[Server], prometheus: str) -> None:
    partners = [Partner(server) for server in site]
    silent = QUERIES
    end = time.monotonic() + 180
    while silent:
        assert time.monotonic() < end, silent
        for partner in partners:
            traffic(partner)
        time.sleep(0.7)
        try:
            silent = [(title, query) for title, query in silent if not asked(prometheus, query)]
        except httpx.TransportError:
            continue  # Prometheus does not listen yet
    loaded = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"][0]["rules"]
    assert {rule["name"] for rule in loaded} == {rule["alert"] for rule in RULES}
    assert {rule["health"] for rule in loaded} <= {"ok", "unknown"}


def test_the_dashboard_is_whole() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    variables = {one["name"] for one in DASHBOARD["templating"]["list"]}
    named = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert named - {"__rate_interval", "__all"} <= variables
    for panel in panels:
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"


def test_what_is_served_is_as_prometheus_wants_it(new_server: Callable[..., Server]) -> None:
    server = new_server("--metrics-by-partner")
    with server.client() as client:
        assert client.get("/chargers/none").status_code == 404
        page = client.get("/metrics").text
    done = subprocess.run(
        [program("promtool", "prometheus"), "check", "metrics"],
        input=page, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
