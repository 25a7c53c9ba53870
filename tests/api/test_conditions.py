"""ETag, If-None-Match and If-Match on single chargers and vehicles (an addition)."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.api.helpers import CHARGER, VEHICLE, create_both, create_event, message

PATHS = [("/chargers/E1", CHARGER), ("/vehicles/E1", VEHICLE)]


@pytest.mark.parametrize(("path", "body"), PATHS)
def test_every_change_gives_another_tag_which_put_patch_and_get_agree_on(
    client: httpx.Client, path: str, body: dict[str, object]
) -> None:
    seen = []
    for method, change in (("PUT", body), ("PUT", body), ("PATCH", {"chargePowers": [3]}),
                           ("PATCH", {})):  # fmt: skip
        tag = client.request(method, path, json=change).headers["etag"]
        assert client.get(path).headers["etag"] == client.head(path).headers["etag"] == tag
        seen.append(tag)
    assert len(set(seen)) == 4
    assert all(tag.startswith('"') and tag.endswith('"') for tag in seen)


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ('{tag}', 304),
        ('W/{tag}', 304),
        ('"x", {tag}', 304),
        ('"x" ,W/{tag},"y"', 304),
        ("*", 304),
        ('"x"', 200),
        ("x", 200),
        ("", 200),
        ('"1', 200),
        ("**", 200),
    ],
)  # fmt: skip
def test_a_client_that_has_the_current_version_is_told_so(
    client: httpx.Client, wanted: str, status: int
) -> None:
    tag = client.put("/chargers/E1", json=CHARGER).headers["etag"]
    for method in ("GET", "HEAD"):
        headers = {"If-None-Match": wanted.format(tag=tag)}
        answer = client.request(method, "/chargers/E1", headers=headers)
        assert answer.status_code == status
        assert answer.headers["etag"] == tag
        if status == 304:
            assert answer.content == b""
            assert "content-type" not in answer.headers


def test_the_tag_of_an_older_version_is_answered_with_the_newer_one(client: httpx.Client) -> None:
    old = client.put("/chargers/E1", json=CHARGER).headers["etag"]
    client.patch("/chargers/E1", json={"chargePowers": [3]})
    answer = client.get("/chargers/E1", headers={"If-None-Match": old})
    assert (answer.status_code, answer.json()["chargePowers"]) == (200, [3])


def test_a_charger_that_does_not_exist_is_404_whatever_the_condition(client: httpx.Client) -> None:
    for name in ("If-None-Match", "If-Match"):
        assert client.get("/chargers/E1", headers={name: "*"}).status_code == 404


@pytest.mark.parametrize("target", PATHS)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ("{tag}", 200),
        ('"x", {tag}', 200),
        ("*", 200),
        ("W/{tag}", 412),  # a weak tag never matches here: RFC 9110, 13.1.1
        ('"x"', 412),
        ("x", 412),
        ("", 412),
    ],
)
def test_a_change_of_a_version_happens_only_to_that_version(
    client: httpx.Client, target: tuple[str, dict[str, object]], method: str, wanted: str,
    status: int,
) -> None:  # fmt: skip
    path, body = target
    tag = client.put(path, json=body).headers["etag"]
    before = client.get(path).text
    headers = {"If-Match": wanted.format(tag=tag)}
    answer = client.request(method, path, json={**body, "chargePowers": [1]}, headers=headers)
    assert answer.status_code == status
    if status == 412:
        assert message(answer) == "Precondition Failed"
        assert client.get(path).text == before
    else:
        assert client.get(path).json()["chargePowers"] == [1]


@pytest.mark.parametrize("wanted", ["*", '"1"', ""])
def test_a_put_that_wants_to_replace_does_not_create_and_a_patch_finds_nothing(
    client: httpx.Client, wanted: str
) -> None:
    headers = {"If-Match": wanted}
    assert client.put("/chargers/E1", json=CHARGER, headers=headers).status_code == 412
    assert client.patch("/chargers/E1", json=CHARGER, headers=headers).status_code == 404
    assert client.get("/chargers/E1").status_code == 404


@pytest.mark.parametrize(("path", "body"), PATHS)
def test_a_put_that_wants_to_create_does_not_replace(
    client: httpx.Client, path: str, body: dict[str, object]
) -> None:
    headers = {"If-None-Match": "*"}
    assert client.put(path, json=body, headers=headers).status_code == 201
    answer = client.put(path, json={**body, "chargePowers": [1]}, headers=headers)
    assert (answer.status_code, message(answer)) == (412, "Precondition Failed")
    assert client.get(path).json() == {"id": "E1", **body}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(
    ("unwanted", "status"),
    [("{tag}", 412), ("W/{tag}", 412), ('"x", {tag}', 412), ("*", 412), ('"x"', 200), ("", 200)],
)
def test_a_change_spares_the_version_that_the_client_does_not_want_to_change(
    client: httpx.Client, method: str, unwanted: str, status: int
) -> None:
    tag = client.put("/chargers/E1", json=CHARGER).headers["etag"]
    headers = {"If-None-Match": unwanted.format(tag=tag)}
    body = {**CHARGER, "chargePowers": [1]}
    answer = client.request(method, "/chargers/E1", json=body, headers=headers)
    assert answer.status_code == status
    expected = body if status == 200 else CHARGER
    assert client.get("/chargers/E1").json() == {"id": "E1", **expected}


def test_a_put_that_spares_a_version_creates_what_is_not_there(client: httpx.Client) -> None:
    headers = {"If-None-Match": '"1"'}
    assert client.put("/chargers/E1", json=CHARGER, headers=headers).status_code == 201
    assert client.patch("/chargers/E2", json=CHARGER, headers=headers).status_code == 404


def test_nothing_is_both_new_and_known(client: httpx.Client) -> None:
    headers = {"If-None-Match": "*", "If-Match": "*"}
    assert client.put("/chargers/E1", json=CHARGER, headers=headers).status_code == 412
    assert client.get("/chargers/E1").status_code == 404


def test_of_many_who_change_the_same_version_one_wins(client: httpx.Client) -> None:
    tag = client.put("/chargers/E1", json=CHARGER).headers["etag"]

    def change(number: int) -> int:
        body = {"chargePowers": [number + 1]}
        method = "PUT" if number % 2 else "PATCH"
        answer = client.request(method, "/chargers/E1", json=body, headers={"If-Match": tag})
        return answer.status_code

    with ThreadPoolExecutor(20) as threads:
        statuses = list(threads.map(change, range(20)))
    assert sorted(statuses) == [200] + [412] * 19
    winner = statuses.index(200)
    assert client.get("/chargers/E1").json()["chargePowers"] == [winner + 1]


def test_a_delete_takes_only_the_version_that_it_names(client: httpx.Client) -> None:
    def change(method: str, headers: dict[str, str]) -> int:
        body = {"chargePowers": [7]} if method == "PATCH" else None
        return client.request(method, "/chargers/E1", json=body, headers=headers).status_code

    with ThreadPoolExecutor(6) as threads:
        for _ in range(20):
            tag = client.put("/chargers/E1", json=CHARGER).headers["etag"]
            methods, headers = ["PATCH", "DELETE"] * 3, [{}, {"If-Match": tag}] * 3
            statuses = set(threads.map(change, methods, headers))
            assert not statuses >= {200, 204}, "what was changed is deleted"
            assert client.get("/chargers/E1").status_code == (404 if 204 in statuses else 200)


def test_events_and_lists_have_no_tags(client: httpx.Client) -> None:
    create_both(client)
    event_id = create_event(client)
    for path in ("/chargers", "/vehicles", "/events", f"/events/{event_id}"):
        assert "etag" not in client.get(path, headers={"If-None-Match": "*"}).headers
