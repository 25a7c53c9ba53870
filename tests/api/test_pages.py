"""The landing page, the reference and the state of the service, without a key and the internet."""

import html
import re
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from tests.conftest import TETHER, Server
from tether import __version__

PAGES = ["/", "/docs"]


class Addresses(HTMLParser):
    """Collects the files that a page loads, and its links."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "src" or (name == "href" and tag == "link"):
                self.loaded.append(value or "")
            elif name == "href":
                self.linked.append(value or "")
            elif name.startswith("on") or name == "style":
                self.inline.append(f"{tag} {name}")
        if tag == "script" and "src" not in dict(attrs):
            self.inline.append(tag)


def addresses(server: Server, path: str) -> Addresses:
    found = Addresses()
    found.feed(httpx.get(server.url + path, verify=False).text)
    return found


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_html_that_may_load_nothing_from_elsewhere(server: Server, path: str) -> None:
    answer = httpx.get(server.url + path, verify=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "http" not in policy
    assert "unsafe-eval" not in policy


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_assets_of_this_server_only_and_they_are_there(
    server: Server, path: str
) -> None:
    found = addresses(server, path)
    assert found.loaded
    assert found.inline == []
    for address in [*found.loaded, *found.linked]:
        assert not address.startswith("/")  # relative: also under a path of a proxy
        assert ":" not in address
        answer = httpx.get(  # the console is loaded for its first page
            f"{server.url}/{address}", verify=False, follow_redirects=True, timeout=60
        )
        assert answer.status_code == 200, address


@pytest.mark.parametrize("path", PAGES)
def test_an_asset_has_its_type_and_may_be_kept_a_while(server: Server, path: str) -> None:
    types = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    for address in addresses(server, path).loaded:
        answer = httpx.get(f"{server.url}/{address}", verify=False)
        assert answer.headers["content-type"].startswith(types[address.rpartition(".")[2]])
        assert "max-age" in answer.headers["cache-control"]
        head = httpx.head(f"{server.url}/{address}", verify=False)
        assert head.headers["content-length"] == answer.headers["content-length"]


def test_a_newcomer_finds_three_curl_commands_and_the_way_to_a_key_and_the_reference(
    server: Server,
) -> None:
    text = httpx.get(server.url, verify=False).text
    assert text.count("curl ") >= 3
    assert "<pre>" not in text  # they have a tabindex: what is wide scrolls by keyboard
    assert "tether keys create" in text
    assert "docs" in addresses(server, "/").linked


def test_the_reference_shows_the_document_of_this_server(server: Server) -> None:
    text = httpx.get(f"{server.url}/static/docs.js", verify=False).text
    assert '"openapi.json"' in text
    assert "://" not in re.sub(r"//.*", "", text)


def test_what_pages_are_made_of_is_compressed_for_whoever_can_read_that(server: Server) -> None:
    address = f"{server.url}/static/scalar-api-reference.js"
    plain = httpx.get(address, headers={"Accept-Encoding": "identity"}, verify=False)
    small = httpx.get(address, headers={"Accept-Encoding": "gzip, br"}, verify=False)
    assert small.headers["content-encoding"] == "gzip"
    assert int(small.headers["content-length"]) < len(plain.content) / 3
    assert small.content == plain.content
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == small.headers["vary"] == "Accept-Encoding"


def test_the_commands_of_the_landing_page_work_when_pasted(
    server: Server, client: httpx.Client
) -> None:
    page = httpx.get(server.url, verify=False).text
    codes = [html.unescape(re.sub(r"<[^>]+>", "", code))
             for code in re.findall(r"<code>(.*?)</code>", page, re.DOTALL)]  # fmt: skip
    commands = [code for code in codes if code.startswith("curl ")]
    statuses = []
    for command in commands:
        done = subprocess.run(
            ["sh", "-c", command.replace("http://127.0.0.1:8000", server.url)
             + " --silent --write-out '\\n%{http_code}'"],
            env={"KEY": client.headers["x-api-key"], "PATH": "/usr/bin:/bin:/usr/local/bin"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        statuses.append(done.stdout.rpartition("\n")[2])
    assert statuses == ["201", "201", "201", "200", "200", "200"]


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_the_service_says_that_it_is_well(server: Server, path: str) -> None:
    answer = httpx.get(server.url + path, verify=False)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_metrics_count_requests_by_route_and_never_by_id(
    server: Server, client: httpx.Client
) -> None:
    client.get("/chargers/a-charger-that-nobody-has")
    client.post("/events", json={})
    client.request("PROPFIND", "/chargers")
    text = httpx.get(f"{server.url}/metrics", verify=False).text
    assert 'method="GET",route="/chargers/{id}",status="404"' in text
    assert 'tether_rejected_events_total{reason="parameter-missing"}' in text
    assert "a-charger-that-nobody-has" not in text
    assert "PROPFIND" not in text
    for name in ("tether_request_seconds_bucket", "tether_commit_batch_size_bucket",
                 "tether_queue_depth"):  # fmt: skip
        assert name in text


def test_metrics_can_be_switched_off(new_server: Callable[..., Server]) -> None:
    server = new_server("--metrics", "off")
    assert httpx.get(f"{server.url}/metrics", verify=False).status_code == 403
    with server.client() as client:
        assert client.get("/metrics").status_code == 404


# What people try in a browser -------------------------------------------------------------------

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def test_the_reference_with_a_slash_leads_to_it(server: Server) -> None:
    for prefix in ("", "/tether"):
        headers = {"X-Forwarded-Prefix": prefix} if prefix else {}
        answer = httpx.get(f"{server.url}/docs/", headers=headers, verify=False)
        assert (answer.status_code, answer.headers["location"]) == (308, f"{prefix}/docs")


def test_browsers_get_the_icon_for_which_they_ask(server: Server) -> None:
    answer = httpx.get(f"{server.url}/favicon.ico", verify=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
    assert answer.content == httpx.get(f"{server.url}/static/favicon.svg", verify=False).content


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/doc", 404, "Not Found. There is no such path: see /docs."),
        ("/docs/chargers", 404, "Not Found. There is no such path: see /docs."),
        ("/%3Cb%3E", 404, "Not Found. There is no such path: see /docs."),
        ("/health/", 404, "Not Found. There is no trailing slash: /health."),
        ("/chargers", 403, "Forbidden. Send your key in the header x-api-key."),
    ],
)
def test_a_browser_gets_a_page_that_leads_back(
    server: Server, path: str, status: int, sentence: str
) -> None:
    answer = httpx.get(server.url + path, headers=BROWSER, verify=False)
    assert (answer.status_code, answer.headers["content-type"]) == (
        status,
        "text/html; charset=utf-8",
    )
    assert sentence in answer.text
    assert set(re.findall(r'href="(.*?)"', answer.text)) == {
        "/", "/docs", "/guides", "/static/style.css", "/static/favicon.svg",
    }  # fmt: skip
    assert "script" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "Accept" in answer.headers["vary"]
    # A program gets JSON.
    plain = httpx.get(server.url + path, verify=False)
    assert list(plain.json()) == ["message"]


def test_the_page_of_an_error_leads_back_below_a_prefix(server: Server) -> None:
    headers = {**BROWSER, "X-Forwarded-Prefix": "/tether"}
    answer = httpx.get(f"{server.url}/doc", headers=headers, verify=False)
    assert 'href="/tether/docs"' in answer.text
    assert "see /tether/docs." in answer.text


def test_the_landing_page_of_a_demo_names_the_file_of_its_key(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a folder"
    program = [str(TETHER), "demo", "--port", "0", "--data", str(folder)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        url = next(line.split()[-1] for line in demo.stdout if "listens on" in line)
        page = httpx.get(url, verify=False).text
        commands = [html.unescape(code) for code in re.findall(r"<code>(KEY=.*?)</code>", page)]
        assert commands == [f"KEY=$(cat '{folder}/demo.key')"]
        assert "keys create" not in page
        done = subprocess.run(
            ["sh", "-c", f'{commands[0]}; curl -s "{url}/chargers" -H "x-api-key: $KEY"'],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == "[]"
        demo.terminate()


def test_the_reference_shows_no_key_of_nobody_s_and_this_version(server: Server) -> None:
    document = httpx.get(f"{server.url}/openapi.json", verify=False).json()
    assert document["info"]["version"] == __version__
    script = httpx.get(f"{server.url}/static/docs.js", verify=False).text
    assert "ttr_live_" in script
    assert ".ascii-art { display: none }" in script
