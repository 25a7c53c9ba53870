"""Browsers of other origins are refused unless the operator names them."""

from collections.abc import Callable

import httpx
import pytest

from tests.conftest import Server

ORIGIN = "https://portal.example.com"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "PUT",
    "Access-Control-Request-Headers": "x-api-key, content-type",
}


def cors(answer: httpx.Response) -> dict[str, str]:
    prefix = "access-control-"
    return {name: value for name, value in answer.headers.items() if name.startswith(prefix)}


def test_without_configuration_no_origin_is_allowed_anything(shared: httpx.Client) -> None:
    assert cors(shared.get("/chargers", headers={"Origin": ORIGIN})) == {}
    with_key = shared.options("/chargers/C1", headers=PREFLIGHT)
    assert (with_key.status_code, cors(with_key)) == (200, {})
    without = httpx.options(f"{shared.base_url}/chargers/C1", headers=PREFLIGHT, verify=False)
    assert (without.status_code, cors(without)) == (403, {})


@pytest.fixture
def portal(new_server: Callable[..., Server]) -> Server:
    return new_server("--cors-origins", f"{ORIGIN}, https://other.example.com")


def test_a_named_origin_may_ask_without_a_key_what_it_may_do(portal: Server) -> None:
    answer = httpx.options(f"{portal.url}/chargers/C1", headers=PREFLIGHT, verify=False)
    assert answer.status_code == 200
    assert cors(answer)["access-control-allow-origin"] == ORIGIN
    assert "PUT" in cors(answer)["access-control-allow-methods"]
    assert cors(answer)["access-control-allow-headers"] == "x-api-key, content-type"
    for path in ("/nowhere", "/chargers/C1"):
        plain = httpx.options(portal.url + path, headers={"Origin": ORIGIN}, verify=False)
        assert plain.status_code == 403

    with portal.client() as client:
        for number in range(2):
            answer = client.put(
                f"/chargers/C{number}", json={"chargePowers": [1]}, headers={"Origin": ORIGIN}
            )
            assert cors(answer)["access-control-allow-origin"] == ORIGIN
        exposed = cors(client.get("/chargers?limit=1", headers={"Origin": ORIGIN}))
        names = set(exposed["access-control-expose-headers"].split(", "))
        assert {"ETag", "Link", "RateLimit", "Retry-After", "X-Request-Id"} <= names
        refused = client.get("/nowhere", headers={"Origin": ORIGIN})
        assert cors(refused)["access-control-allow-origin"] == ORIGIN

        assert cors(client.get("/chargers", headers={"Origin": "https://evil.example"})) == {}
        assert cors(client.get("/chargers", headers={"Origin": "null"})) == {}
        assert cors(client.get("/chargers")) == {}
    foreign = httpx.options(
        f"{portal.url}/chargers/C1",
        headers=PREFLIGHT | {"Origin": "https://evil.example"},
        verify=False,
    )
    assert "access-control-allow-origin" not in foreign.headers
    no_key = httpx.get(f"{portal.url}/chargers", headers={"Origin": ORIGIN}, verify=False)
    assert (no_key.status_code, cors(no_key)["access-control-allow-origin"]) == (403, ORIGIN)


def test_an_answer_that_depends_on_the_origin_says_so_to_caches(portal: Server) -> None:
    with portal.client() as client:
        for headers in ({"Origin": ORIGIN}, {"Origin": "https://evil.example"}, {}):
            assert "Origin" in client.get("/chargers", headers=headers).headers["vary"]


def test_a_star_allows_every_origin(new_server: Callable[..., Server]) -> None:
    server = new_server("--cors-origins", "*")
    answer = httpx.options(f"{server.url}/chargers/C1", headers=PREFLIGHT, verify=False)
    assert (answer.status_code, cors(answer)["access-control-allow-origin"]) == (200, "*")
