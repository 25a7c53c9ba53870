"""Who can sign in to the console, how, and for how long; over HTTP, on each engine."""

import asyncio
import gzip
import re
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.commands import tether, tether_ok
from tests.conftest import FAST, Server
from tests.console.visitors import (
    OURS,
    cookie_name,
    from_address,
    new_link,
    new_session,
    partner_number,
    visitor,
)
from tests.fleet import put_fleet
from tether.domain import timestamps
from tether.domain.keys import LINK_MS, Rate, digest_of
from tether.server import admin
from tether.server.store import open_store
from tether.storage.refused_requests import DEFAULT_REQUEST_LOG, RefusalFilter, RefusedRequest

PAGES = (
    "/live", "/live/vehicles", "/live?show=all&q=C1", "/keys", "/chargers/C1", "/vehicles/V1",
    "/sessions", "/sessions/totals?unit=month", "/sessions.csv", "/flexibility",
    "/flexibility/figures", "/flexibility/course?span=week", "/start", "/requests?status=4xx&q=x",
)  # fmt: skip


@pytest.fixture
def stranger(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers=OURS, timeout=30, verify=False)


def with_things(server: Server) -> tuple[str, int]:
    """The key of a new partner with a charger and a vehicle, and the partner's number."""
    key = server.key()
    with server.client(key) as client:
        put_fleet(client)
    return key, partner_number(server, key)


# In and out ---------------------------------------------------------------------------------------


def test_signed_out_every_page_leads_to_the_sign_in_and_back(
    server: Server, stranger: httpx.Client
) -> None:
    key, number = with_things(server)
    paths = ["/console", "/console/partners", "/console/nothing", f"/console/p/{number}/nothing",
             *(f"/console/p/{number}{page}" for page in PAGES)]  # fmt: skip
    for path in paths:
        answer = stranger.get(path)
        assert answer.status_code == 303, path
        place = urlsplit(answer.headers["location"])
        assert place.path == "/console/sign-in"
        assert parse_qs(place.query)["to"] == [path]
    sent = stranger.post(f"/console/p/{number}/keys")  # the session ended while it was filled in
    form = stranger.get(sent.headers["location"]).text
    assert f'value="/console/p/{number}/keys"' in form
    assert "signed out in the meantime, so nothing was changed" in form
    assert "nothing was changed" not in stranger.get(answer.headers["location"]).text
    answer = stranger.post(
        "/console/sign-in", data={"key": f" {key} ", "to": f"/console/p/{number}/keys"}
    )
    assert answer.status_code == 303
    for _ in range(2):
        answer = stranger.get(answer.headers["location"])
    assert answer.status_code == 200
    assert answer.url.path == f"/console/p/{number}/keys"


ELSEWHERE = (
    "//evil.example", "https://evil.example/console", "/console/../../evil", "/\\evil.example",
    "/console//evil.example", "/consolation", "javascript:alert(1)", "/console\n/x", "/chargers",
    "/console?to=\r\nx", "/console/" + "a" * 3000, "/console@evil", "/console/%2e%2e/evil",
)  # fmt: skip


def test_the_sign_in_leads_nowhere_else(server: Server) -> None:
    with visitor(server) as operator:
        for to in ELSEWHERE:
            answer = operator.get("/console/sign-in", params={"to": to})
            assert answer.headers["location"] == "/console", to


def test_a_partner_signs_in_with_a_key_and_out_again(
    server: Server, stranger: httpx.Client
) -> None:
    key = server.key("Nordic Charge (test)")
    answer = stranger.post("/console/sign-in", data={"key": key})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{cookie_name(server)}=")
    assert re.sub(r"^[^;]*", "", cookie) == "; Max-Age=43200; Path=/; HttpOnly; SameSite=Strict"
    page = stranger.get("/console", follow_redirects=True)
    assert page.url.path == f"/console/p/{partner_number(server, key)}/start"
    assert "Nordic Charge (test)" in page.text
    assert key not in page.text
    used = dict(stranger.cookies)
    assert stranger.post("/console/sign-out").status_code == 303
    again = httpx.get(f"{server.url}/console", cookies=used, verify=False)
    assert again.headers["location"].startswith("/console/sign-in")


@pytest.mark.parametrize(
    "headers",
    [{"Host": "tether.example.com", "X-Forwarded-Proto": "https"}, {"Host": "tether.example.com"},
     {"X-Forwarded-Proto": "https"}],
)  # fmt: skip
def test_but_for_this_machine_the_cookie_is_for_tls_and_this_host_alone(
    server: Server, stranger: httpx.Client, headers: dict[str, str]
) -> None:
    answer = stranger.post("/console/sign-in", data={"key": server.key()}, headers=headers)
    assert re.fullmatch(
        r"__Host-tether-console=[\w-]{30}; Max-Age=43200; Path=/; HttpOnly; Secure; "
        r"SameSite=Strict",
        answer.headers["set-cookie"],
    )


def test_a_key_that_does_not_work_lets_nobody_in(server: Server, stranger: httpx.Client) -> None:
    revoked = server.key()
    with visitor(server, revoked) as owner:
        number = partner_number(server, revoked)
        page = owner.get(f"/console/p/{number}/keys").text
        (digest,) = set(re.findall(r'name="key" value="(\w{64})"', page))
        owner.post(f"/console/p/{number}/keys", data={"do": "revoke", "key": digest})
    for key in ("", "no key", "ttr_live_" + "0" * 36, revoked, "<script>"):
        answer = stranger.post("/console/sign-in", data={"key": key})
        assert answer.status_code == 403
        assert "does not work" in answer.text
        assert "set-cookie" not in answer.headers


def test_attempts_to_sign_in_are_few_and_others_are_not_kept_out(server: Server) -> None:
    with from_address(server, "127.0.0.9") as guesser:
        answers = [guesser.post("/console/sign-in", data={"key": "x"}) for _ in range(60)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) >= 20
        assert int(refused[0].headers["retry-after"]) >= 1
        assert "Too many attempts" in refused[0].text
        assert guesser.get("/console/enter/" + "A" * 30).status_code == 429
    with from_address(server, "127.0.0.10") as other:
        assert other.post("/console/sign-in", data={"key": server.key()}).status_code == 303


# The operator's link ------------------------------------------------------------------------------


def test_a_link_signs_the_operator_in_once(server: Server, stranger: httpx.Client) -> None:
    link = new_link(server)
    assert stranger.head(link).status_code == 200
    assert stranger.get(link, headers={"Sec-Purpose": "prefetch"}).status_code == 403
    answer = stranger.get(link)
    assert answer.status_code == 200
    assert 'content="0; url=/console"' in answer.text
    assert stranger.get("/console/partners").status_code == 200
    again = httpx.get(link, verify=False)
    assert again.status_code == 403
    assert "set-cookie" not in again.headers


def test_the_command_prints_the_link_alone(server: Server) -> None:
    done = tether("console", "--database", server.database, "--port", "8123")
    assert re.fullmatch(r"http://127\.0\.0\.1:8123/console/enter/[\w-]{30}\n", done.stdout)
    assert "ten minutes" in done.stderr


def test_a_link_that_was_not_used_in_time_is_worth_nothing(
    server: Server, stranger: httpx.Client
) -> None:
    async def make() -> str:
        async with open_store(server.database) as store:
            return await admin.console_link(store, timestamps.now_ms() - LINK_MS)

    assert stranger.get(asyncio.run(make())).status_code == 403


def test_the_command_ends_all_sessions_of_the_operator(new_server: Callable[..., Server]) -> None:
    server = new_server()
    key = server.key()
    link = new_link(server)
    with visitor(server) as operator, visitor(server, key) as owner:
        said = tether_ok("console", "--sign-out", "--database", server.database)
        assert said == "Ended 1 session of the operator.\n"
        assert operator.get("/console/partners").status_code == 303
        assert operator.get(link).status_code == 403
        assert owner.get(f"/console/p/{partner_number(server, key)}/live").status_code == 200


# How long -----------------------------------------------------------------------------------------


def test_a_session_ends_after_its_time(server: Server) -> None:
    with visitor(server, token=new_session(server, None, lasts_ms=-1)) as late:
        assert late.get("/console/partners").status_code == 303


def test_a_revoked_key_ends_the_sessions_that_it_began_on_every_node(
    postgres_server: Server, new_server: Callable[..., Server]
) -> None:
    other_node = new_server(database=postgres_server.database)
    key = postgres_server.key()
    number, token = partner_number(postgres_server, key), new_session(postgres_server, key)
    path = f"/console/p/{number}/keys"
    with (
        visitor(postgres_server, token=token) as here,
        visitor(other_node, token=token) as there,
        visitor(other_node) as operator,
    ):
        assert (here.get(path).status_code, there.get(path).status_code) == (200, 200)
        (digest,) = set(re.findall(r'name="key" value="(\w{64})"', operator.get(path).text))
        assert operator.post(path, data={"do": "revoke", "key": digest}).status_code == 303
        assert (here.get(path).status_code, there.get(path).status_code) == (303, 303)


def test_with_a_partner_its_sessions_go(server: Server) -> None:
    key = server.key("short-lived")
    with visitor(server, key) as owner:
        path = f"/console/p/{partner_number(server, key)}/live"
        assert owner.get(path).status_code == 200
        tether_ok("partners", "delete", "short-lived", "--yes", "--database", server.database)
        assert owner.get(path).status_code == 303


# What each may do ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"},
     {"Origin": "https://evil.example"}, {"Origin": "null"}, {},
     {"Sec-Fetch-Site": "cross-site", "Origin": "{own}"}],
)  # fmt: skip
def test_changes_come_from_our_own_pages_only(server: Server, headers: dict[str, str]) -> None:
    key = server.key()
    number, token = partner_number(server, key), new_session(server, key)
    sent = {name: value.replace("{own}", server.url) for name, value in headers.items()}
    cookies = {cookie_name(server): token}
    for path in (f"/console/p/{number}/keys", "/console/sign-in", "/console/sign-out"):
        answer = httpx.post(
            server.url + path, headers=sent, cookies=cookies, data={"do": "create"}, verify=False
        )
        assert answer.status_code == 403, path
    with visitor(server, token=token) as owner:
        assert owner.get(f"/console/p/{number}/keys").text.count('<th scope="row">') == 1


def test_where_browsers_do_not_say_more_the_origin_counts(server: Server) -> None:
    token = new_session(server, server.key())
    answer = httpx.post(
        f"{server.url}/console/sign-out", headers={"Origin": server.url},
        cookies={cookie_name(server): token}, verify=False,
    )  # fmt: skip
    assert answer.status_code == 303


def test_a_key_that_may_only_read_changes_nothing(server: Server) -> None:
    key = server.key("reads-only", read_only=True)
    path = f"/console/p/{partner_number(server, key)}/keys"
    with visitor(server, key) as reader:
        page = reader.get(path).text
        assert re.findall(r'<form [^>]*method="post"[^>]*>', page) == [
            '<form method="post" action="/console/sign-out">'
        ]
        for form in ({"do": "create"}, {"do": "revoke", "key": "x"}, {"do": "rotate"}):
            assert reader.post(path, data=form).status_code == 403
        assert reader.get(path).text.count('<th scope="row">') == 1


def test_another_partners_pages_are_not_there(server: Server) -> None:
    _, number = with_things(server)
    with visitor(server, server.key()) as other:
        for page in (*PAGES, "/ticks", "/nothing"):
            assert other.get(f"/console/p/{number}{page}").status_code == 404, page
        assert other.post(f"/console/p/{number}/keys", data={"do": "create"}).status_code == 404
        assert other.get("/console/partners").status_code == 404
        deleting = {"do": "delete", "partner": number}
        assert other.post("/console/partners", data=deleting).status_code == 404
        assert other.get("/console/p/1/live").status_code == 404
    with visitor(server) as operator:
        for page in PAGES:
            assert operator.get(f"/console/p/{number}{page}").status_code == 200, page
        assert operator.get("/console/p/1/live").status_code == 404


def test_every_page_forbids_what_it_does_not_need(server: Server, stranger: httpx.Client) -> None:
    _, number = with_things(server)
    with visitor(server) as operator:
        answers = [operator.get(f"/console/p/{number}{page}") for page in (*PAGES, "/nothing")]
        answers += [stranger.get("/console/sign-in"), stranger.get("/console")]
        for answer in answers:
            assert answer.headers["content-security-policy"] == (
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                "connect-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none'; "
                "base-uri 'none'"
            )
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert not re.search(r"<script>|<script [^>]*>[^<]|<style| style=| on\w+=", answer.text)


def test_what_is_sent_has_bounds(server: Server) -> None:
    key = server.key()
    path = f"/console/p/{partner_number(server, key)}/keys"
    with visitor(server, key) as owner:
        assert owner.post(path, data={"name": "x" * 20_000}).status_code == 413
        many = "&".join(f"a{number}=1" for number in range(60))
        assert owner.post(path, content=many).status_code == 400
        assert owner.get(f"{path}?{many}").status_code == 200  # which asks for nothing
        assert owner.request("DELETE", path).status_code == 405
        assert owner.get(path.replace("keys", "live"), params={"skip": "9" * 9}).status_code == 400


def test_without_a_console_there_is_none(new_server: Callable[..., Server]) -> None:
    server = new_server("--console", "off")
    answer = httpx.get(f"{server.url}/console/sign-in", verify=False)
    assert answer.status_code == 403  # as any path that is not there, without a key
    assert answer.headers["content-type"] == "application/json"
    assert "console" not in httpx.get(server.url, verify=False).text.lower()


# A simulated day ----------------------------------------------------------------------------------


def test_a_simulated_day_is_not_mixed_with_what_may_be_real(server: Server) -> None:
    key, number = with_things(server)
    path = f"/console/p/{number}/start"
    with server.client(key) as client:
        event = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}
        client.post("/events", json=event).raise_for_status()
        with visitor(server, key) as owner:
            answer = owner.post(path, data={"do": "simulate"})
            assert answer.status_code == 400
            assert "has events that may be real" in answer.text
            assert owner.post(path, data={"do": "nothing"}).status_code == 400
        assert len(client.get("/events").json()) == 1
    reader = server.key("reads a day", read_only=True)
    path = f"/console/p/{partner_number(server, reader)}/start"
    with visitor(server, reader) as visit:
        assert visit.post(path, data={"do": "simulate"}).status_code == 403
        assert "Send a simulated day" not in visit.get(path).text


def test_a_partner_for_tests_gets_its_day_again_and_each_event_once(server: Server) -> None:
    key = server.key("only for tests", test=True)
    path = f"/console/p/{partner_number(server, key)}/start"
    with server.client(key) as client, visitor(server, key) as owner, visitor(server) as operator:
        for visit in (owner, operator):
            answers = [visit.post(path, data={"do": "simulate"}) for _ in range(2)]
            assert answers[0].status_code == 303
            assert answers[1].status_code in (303, 400)  # it is being sent, or has been
            refused_of(visit, path, "A simulated day is there")
        events = client.get("/events?limit=1000").json()
        assert len(events) > 100
        what = {(one["timestamp"], one["vehicleId"], one["type"]) for one in events}
        assert len(what) == len(events)
        assert len(client.get("/chargers?limit=100").json()) == 20


# What was refused ---------------------------------------------------------------------------------


def refused_of(owner: httpx.Client, path: str, wanted: str) -> str:
    """The page with refused requests, when it shows this text."""
    for _ in range(300):
        text = owner.get(path).text
        if wanted in text:
            return text
        time.sleep(0.1)
    raise AssertionError(f"{wanted} is not there")


def test_refused_requests_are_kept_for_their_partner_alone_and_without_keys(
    server: Server,
) -> None:
    key, number = with_things(server)
    other = server.key()
    path = f"/console/p/{number}/requests"
    with server.client(key) as client:
        body = {"type": "VEHICLE_CONNECTED", "chargerId": key, "vehicleId": "\0V1"}
        refused = client.post("/events", json=body, headers={"X-Request-Id": "kept/1"})
        assert refused.status_code == 400
        client.get("/chargers/C1").raise_for_status()
        client.get("/chargers/unknown-one")
        client.post("/events", content=gzip.compress(b"{"), headers={"Content-Encoding": "gzip"})
    with visitor(server, key) as owner, visitor(server, other) as stranger:
        page = refused_of(owner, path, "/chargers/unknown-one")
        assert "/chargers/C1<" not in page
        one = owner.get(f"{path}/one", params={"id": "kept/1"})
        assert one.status_code == 200
        assert key not in one.text
        assert key[:17] in one.text
        refused_of(owner, f"{path}?status=404", "unknown-one")
        assert "unknown-one" not in owner.get(f"{path}?status=400").text
        assert "unknown-one" not in owner.get(f"{path}?status=5xx").text
        assert "Nothing was refused" in owner.get(f"{path}?q=100%25").text
        for bad in ("?status=600", "?status=9xx", "?before=x"):
            assert owner.get(path + bad).status_code == 400
        assert owner.get(f"{path}/one?id=nothing").status_code == 404
        own = f"/console/p/{partner_number(server, other)}/requests"
        assert "Nothing was refused" in stranger.get(own).text
        assert stranger.get(f"{own}/one?id=kept%2F1").status_code == 404


def test_of_a_flood_of_refusals_little_is_kept_and_the_newest_of_much(server: Server) -> None:
    key, number = with_things(server)
    path = f"/console/p/{number}/requests"

    async def fill() -> None:
        async with open_store(server.database) as store:
            now_ms = timestamps.now_ms()
            for round in range(12):
                requests = [
                    RefusedRequest(now_ms + round, f"{round}-{number}", "", "GET", "/x", 404, 1, "",
                                   "", "")
                    for number in range(500)
                ]  # fmt: skip
                await store.refused_requests.add(number, requests, now_ms)
            old = [RefusedRequest(1, "old", "", "GET", "/x", 404, 1, "", "", "")]
            await store.refused_requests.add(number, old, now_ms)
            wanted = RefusalFilter()
            found = await store.refused_requests.page(number, wanted, (2**62, ""), now_ms, 10_000)
            assert len(found) <= DEFAULT_REQUEST_LOG.rows
            assert found[0].id.startswith("11-")

    asyncio.run(fill())
    with visitor(server, key) as owner:
        assert owner.get(f"{path}/one?id=old").status_code == 404
        assert owner.get(path).text.count('<th scope="row">') == 50


def test_what_was_refused_is_found_by_any_text(server: Server) -> None:
    key, number = with_things(server)
    path = f"/console/p/{number}/requests"
    with server.client(key) as client:
        for place in ("Malmö/ÖST", "50%_here", "{1,2}/../x[1-9]"):
            client.post("/events", content=f'{{"type": "{place}"}}'.encode())
        client.post("/events", content=b"@/etc/hostname\xff")
    with visitor(server, key) as owner:
        one = refused_of(owner, f"{path}?q=hostname", "requests/one")
        for text, count in (("MALMö/ÖST", 1), ("malmö", 1), ("50%_H", 1), ("5%0", 0), ("%_", 1),
                            ("/ETC/", 1), ("x" * 200, 0)):  # fmt: skip
            page = owner.get(path, params={"q": text}).text
            assert page.count('<th scope="row">') == count, text
        assert owner.get(path, params={"q": "x" * 201}).status_code == 400
        # What is sent again is what was sent, and no command to curl.
        found = re.search(r'href="([^"]*/requests/one[^"]*)"', one)
        assert found
        curl = owner.get(found[1]).text
        assert "--data-raw" in curl
        assert "--globoff --path-as-is" in curl


@pytest.mark.parametrize(
    ("page", "kept", "told"),
    [("requests?status=4x4&q=mine", "mine", "Status: It must be 2xx"),
     (f"requests?path=/mine&q={'x' * 201}", "/mine", "Contains: It has at most 200"),
     ("audit?action=Key+revoke", "Key revoke", "Action: It must be one such as key.revoke."),
     ("sessions?from=x&vehicle=mine", "mine", "From: It must be a day such as 2026-01-31."),
     ("sessions?zone=Berlin", "Berlin", "Time zone of days: It must be the name of")],
)  # fmt: skip
def test_a_mistake_in_a_filter_is_told_above_it(
    server: Server, page: str, kept: str, told: str
) -> None:
    key, number = with_things(server)
    with visitor(server, key) as owner:
        answer = owner.get(f"/console/p/{number}/{page}")
    assert answer.status_code == 400
    assert f'role="alert">{told}' in answer.text
    assert f'value="{kept}"' in answer.text


def test_of_a_body_so_many_bytes_are_kept(server: Server) -> None:
    number = partner_number(server, server.key())

    async def keep() -> RefusedRequest:
        async with open_store(server.database) as store:
            store.request_recorder.record(
                number, request_id="mine", key_prefix="", method="POST", path="/events",
                status=400, seconds=0.0, error="", answer=b"", body=b"\xff" * 20_000,
            )  # fmt: skip
            await store.request_recorder.write()
            return await store.refused_requests.get(number, "mine")

    assert 16_000 < len(asyncio.run(keep()).body.encode()) <= 16_384


def test_odd_addresses_and_forms_are_no_failure(server: Server) -> None:
    key, number = with_things(server)
    with visitor(server, key) as owner, visitor(server) as operator:
        for odd in ("9223372036854775808", "1" * 30, "-1", "0"):
            assert operator.get(f"/console/p/{odd}/live").status_code == 404
        for visit in (owner, operator):
            own = f"/console/p/{number}"
            for page in ("requests?q=%00&path=%00", "sessions?vehicle=%00", "live?q=%00"):
                assert visit.get(f"{own}/{page}").status_code == 200, page
            assert visit.get(f"{own}/requests/one?id=%00").status_code == 404
            revoking = {"do": "revoke", "key": "\0"}
            assert visit.post(f"{own}/keys", data=revoking).status_code == 404
        assert operator.get("/console/partners?after=%00").status_code == 200
        creating = {"do": "create", "name": "\0"}
        assert operator.post("/console/partners", data=creating).status_code == 400
        assert operator.get("/console/").headers["location"].startswith("/console/p")
        assert operator.get(f"/console/p/{number}/keys/").status_code == 200
        assert operator.get(f"/console/p/{number}/nothing/").status_code == 404


def test_a_partner_rotates_no_key_that_may_do_more_than_its_own(server: Server) -> None:
    lasting, number = with_things(server)
    path = f"/console/p/{number}/keys"

    async def make(**limits: object) -> str:
        async with open_store(server.database) as store:
            now_ms = timestamps.now_ms()
            (name,) = [one.name for one in await store.partners.all() if one.id == number]
            secret, _ = await admin.create_key(store, now_ms, name, **limits)  # type: ignore[arg-type]
            return secret

    ends_ms = timestamps.now_ms() + 3_600_000
    ending = asyncio.run(make(rate=FAST, expires_ms=ends_ms))
    slow = asyncio.run(make(rate=Rate(1, 1)))
    for own, other in ((ending, lasting), (slow, lasting), (slow, ending)):
        with visitor(server, own) as visit:
            rotating = {"do": "rotate", "key": digest_of(other), "overlap": "1h"}
            answer = visit.post(path, data=rotating)
            assert answer.status_code == 400
            assert "sign in with it" in answer.text
            assert 'id="secret"' not in answer.text
    for own, other in ((lasting, slow), (lasting, ending), (ending, ending)):
        with visitor(server, own) as visit:
            rotating = {"do": "rotate", "key": digest_of(other), "overlap": "1h"}
            assert 'id="secret"' in visit.post(path, data=rotating).text


def test_however_many_are_asked_for_at_once_a_partner_makes_twenty_keys(server: Server) -> None:
    key, number = with_things(server)
    path = f"/console/p/{number}/keys"
    headers = {"Cookie": f"{cookie_name(server)}={new_session(server, key)}", **OURS}

    async def make() -> list[int]:
        async with httpx.AsyncClient(
            base_url=server.url, headers=headers, timeout=60, verify=False
        ) as client:
            asked = (client.post(path, data={"do": "create"}) for _ in range(30))
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert sorted(asyncio.run(make())) == [200] * 19 + [400] * 11
