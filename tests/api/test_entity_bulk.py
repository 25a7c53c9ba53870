"""Many chargers or vehicles in one request: `POST /chargers/bulk` and `POST /vehicles/bulk`."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.helpers import CHARGER, ON_ONE_ENGINE, VEHICLE, error, message, ndjson
from tests.conftest import Server
from tests.lists import pages
from tether.domain.keys import Rate

BODIES: dict[str, dict[str, Any]] = {"chargers": CHARGER, "vehicles": VEHICLE}
each_kind = pytest.mark.parametrize("kind", BODIES)


def version_of(etag: str) -> int:
    return int(etag.strip('"').partition("-")[0])


def answered(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


@each_kind
@pytest.mark.parametrize("form", ["array", "lines", "gzip"])
def test_each_is_what_a_put_makes_of_it(client: httpx.Client, kind: str, form: str) -> None:
    put = [{"id": f"X{number:04}", **BODIES[kind]} for number in range(1_500)]
    body = json.dumps(put).encode() if form == "array" else ndjson(put)
    headers = {"content-encoding": "gzip"} if form == "gzip" else {}
    content = gzip.compress(body) if form == "gzip" else body
    for status in (201, 200):
        answer = client.post(f"/{kind}/bulk", content=content, headers=headers)
        etag = client.get(f"/{kind}/X0007").headers["etag"]
        wanted = [{"status": status, "id": one["id"], "etag": etag} for one in put]
        assert answered(answer) == wanted
    found = [one for page in pages(client, f"/{kind}", limit=1000) for one in page]
    assert found == put


@each_kind
def test_good_items_are_stored_although_others_are_bad(client: httpx.Client, kind: str) -> None:
    good, whole = {"id": "G", **BODIES[kind]}, BODIES[kind]
    items: list[Any] = [
        good,
        whole,
        {"id": 7, **whole},
        {"id": "a b", **whole},
        {"id": "B"},
        {"id": "B", **whole, "color": "red"},
        {"id": "B", **whole, "chargePowers": [-1]},
        7,
        "text",
        {**good, "id": "H"},
    ]
    answer = client.post(f"/{kind}/bulk", content=ndjson(items) + b'{"id": "C"\n')
    results = answered(answer)
    statuses = [result["status"] for result in results]
    assert statuses == [201, 400, 400, 400, 400, 400, 400, 400, 400, 201, 400]
    assert [result.get("parameter") for result in results[1:4]] == ["id"] * 3
    for place in (4, 5, 6):  # the same words as for one alone
        alone = client.put(f"/{kind}/B", json=items[place])
        assert results[place]["message"] == message(alone)
        said = f'{results[place]["code"]}; parameter="{results[place]["parameter"]}"'
        assert said == alone.headers["tether-error"]
    assert [one["id"] for page in pages(client, f"/{kind}") for one in page] == ["G", "H"]


@each_kind
def test_one_id_many_times_is_put_as_often(client: httpx.Client, kind: str) -> None:
    power = [{**BODIES[kind], "id": "X", "chargePowers": [number]} for number in range(1, 1_002)]
    results = answered(client.post(f"/{kind}/bulk", content=ndjson(power)))
    assert [version_of(result["etag"]) for result in results] == list(range(1, 1_002))
    assert [result["status"] for result in results] == [201] + [200] * 1_000
    answer = client.get(f"/{kind}/X")
    assert answer.json()["chargePowers"] == [1001]
    assert answer.headers["etag"] == results[-1]["etag"]


@each_kind
def test_an_entity_may_be_called_bulk(client: httpx.Client, kind: str) -> None:
    path = f"/{kind}/bulk"
    assert client.put(path, json=BODIES[kind]).status_code == 201
    assert client.patch(path, json={"chargePowers": [3]}).status_code == 200
    assert client.get(path).json()["chargePowers"] == [3]
    assert client.head(path).status_code == 200
    assert client.get(f"{path}/state").status_code == 200
    assert [one["id"] for page in pages(client, f"/{kind}") for one in page] == ["bulk"]
    assert client.delete(path).status_code == 204
    allowed = client.request("PURGE", path).headers["allow"]
    assert allowed == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


@each_kind
def test_others_at_the_same_time_lose_nothing(client: httpx.Client, kind: str) -> None:
    """In opposite orders, which may cause a deadlock in a database."""
    ids = [f"X{number}" for number in range(300)]
    bodies = [ndjson([{"id": one, **BODIES[kind]} for one in order]) for order in (ids, ids[::-1])]

    def put(number: int) -> int:
        return client.post(f"/{kind}/bulk", content=bodies[number % 2]).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(put, range(24))) == {200}
    results = answered(client.post(f"/{kind}/bulk", content=bodies[0]))
    assert {version_of(result["etag"]) for result in results} == {25}


@ON_ONE_ENGINE
@each_kind
def test_bodies_that_are_refused_as_a_whole(client: httpx.Client, kind: str) -> None:
    one = kind.removesuffix("s")
    for content, status, text in (
        (b"", 400, f"The body has no {one}s: NDJSON or a JSON array is expected."),
        (b"[" + b"7," * 10_001 + b"7]", 413, f"a body has at most 10,000 {one}s"),
        (b'["' + b"x" * 70_000 + b'"]', 413, f"a {one} has at most 65,536 bytes"),
        (b"[{}, tru]", 400, f"{one.capitalize()} 2 of the array"),
    ):
        answer = client.post(f"/{kind}/bulk", content=content)
        assert (answer.status_code, text in message(answer)) == (status, True), answer.text


@ON_ONE_ENGINE
def test_each_counts_in_the_rate(server: Server) -> None:
    key = server.key(rate=Rate(1, 60), burst=20)
    put = [{"id": f"X{number}", **VEHICLE} for number in range(30)]
    with server.client(key) as client:
        answer = client.post("/vehicles/bulk", json=put)
        assert [item["status"] for item in answered(answer)] == [201] * 20 + [429] * 10
        assert answer.headers["retry-after"] == "60"


@ON_ONE_ENGINE
@given(st.lists(st.binary(max_size=40), max_size=6))
@settings(max_examples=60)
def test_any_bytes_get_an_answer(client: httpx.Client, content: list[bytes]) -> None:
    answer = client.post("/vehicles/bulk", content=b"\n".join(content))
    if answer.status_code == 200:
        assert all(item["status"] in (200, 201, 400) for item in answer.json())
    else:
        assert error(answer).code in ("body-malformed",)
