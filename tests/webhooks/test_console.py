"""Webhooks in the console, through the forms of its pages."""

import re
from html import unescape

from tests.conftest import Server
from tests.console.visitors import partner_number, visitor
from tests.webhooks.receiver import Receiver
from tests.webhooks.test_delivery import post, wait
from tether.client import verify_webhook


def test_the_pages(server: Server, key: str, receiver: Receiver, path: str) -> None:
    pages = f"/console/p/{partner_number(server, key)}/webhooks"
    gone = [True]
    receiver.answer = lambda one: (410, {}, b"<i>no</i>\x1b") if one.path == path and gone else None
    with visitor(server, key) as visit, server.client(key) as client:
        assert "No webhooks yet." in visit.get(pages).text
        refused = visit.post(pages, data={"url": "https://10.0.0.1/"})
        assert refused.status_code == 400
        assert "no request goes there" in refused.text
        url = f"{receiver.url}{path}"
        made = visit.post(pages, data={"url": url, "event.created": "on", "description": "<b>x"})
        secret = re.search(r'id="secret">(whsec_[^<]+)<', made.text)
        assert secret is not None
        assert "&lt;b&gt;x" in made.text
        (hook,) = client.get("/webhooks").json()
        page = f"{pages}/{hook['id']}"
        assert "failed after" in visit.post(page, data={"do": "test"}).text
        event = post(client)
        wait(lambda: "wants no more" in visit.get(page).text)
        shown = visit.get(page).text
        assert f"event_created_{event}" in shown
        assert "&lt;i&gt;no&lt;/i&gt;\\u001b" in shown
        gone.clear()
        assert "was taken" in visit.post(page, data={"do": "test"}).text
        wait(lambda: [one.id for one in receiver.at(path)].count(f"event_created_{event}") == 2)
        verify_webhook(receiver.at(path)[-1].headers, receiver.at(path)[-1].body,
                       unescape(secret[1]))  # fmt: skip
        count = len(receiver.at(path))
        again = visit.post(page, data={"do": "replay", "message": f"event_created_{event}"})
        assert again.status_code == 303
        receiver.wait_for(path, count + 1)
        assert "whsec_" in visit.post(page, data={"do": "rotate"}).text
        assert visit.post(page, data={"do": "disable"}).status_code == 303
        assert client.get(f"/webhooks/{hook['id']}").json()["status"] == "disabled"
        assert visit.post(page, data={"do": "enable"}).status_code == 303
        nonsense = visit.post(page, data={"do": "replay", "message": "nonsense"})
        assert nonsense.status_code == 400
        with visitor(server, server.key()) as other:
            assert other.get(page).status_code == 404
        with visitor(server, server.key(read_only=True)) as reader:
            own = f"/console/p/{partner_number(server, key)}/webhooks"
            assert reader.post(own, data={"url": url}).status_code in (403, 404)
        elsewhere = visit.post(page, data={"do": "test"}, headers={"Sec-Fetch-Site": "cross-site"})
        assert elsewhere.status_code == 403
        assert visit.post(page, data={"do": "delete"}).status_code == 303
        assert client.get("/webhooks").json() == []
        assert visit.get(page).status_code == 404
