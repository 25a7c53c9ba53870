"""The guides in the server: the documents as pages whose links all work, and a search."""

import html
import re
from urllib.parse import urldefrag, urljoin

import httpx
import pytest

from tests.api.test_pages import BROWSER, Addresses
from tests.conftest import Server


def crawl(server: Server) -> dict[str, str]:
    """Every page below /guides that a reader can reach, by address."""
    found: dict[str, str] = {}
    waiting = [f"{server.url}/guides"]
    with httpx.Client() as client:
        while waiting:
            address = waiting.pop()
            if address in found:
                continue
            answer = client.get(address)
            assert answer.status_code == 200, address
            found[address] = answer.text
            if "html" not in answer.headers["content-type"] or "/guides" not in address:
                continue
            page = Addresses()
            page.feed(answer.text)
            assert page.inline == []
            links = [urljoin(address, link) for link in [*page.loaded, *page.linked]]
            waiting += [urldefrag(link).url for link in links if link.startswith(server.url)]
    return found


@pytest.fixture(scope="module")
def server(sqlite_server: Server) -> Server:
    """One engine is enough: the guides are in no database."""
    return sqlite_server


@pytest.fixture(scope="module")
def pages(server: Server) -> dict[str, str]:
    return crawl(server)


def test_every_link_of_the_guides_leads_to_a_page_and_to_its_heading(
    server: Server, pages: dict[str, str]
) -> None:
    assert {f"{server.url}/guides/{name}" for name in ("sdk", "decisions/0001-http-server")} < {
        *pages
    }
    assert f"{server.url}/guides/figures/house.svg" in pages
    for address, text in pages.items():
        if "/guides" not in address:
            continue
        for link in re.findall(r'href="([^"]+#[^"]+)"|href="(#[^"]+)"', text):
            target, fragment = urldefrag(urljoin(address, link[0] or link[1]))
            if target.startswith(server.url):
                assert f'id="{fragment}"' in pages[target], f"{address} leads to {link}"


def test_a_guide_has_the_text_of_the_document_its_code_and_its_tables(
    server: Server, pages: dict[str, str]
) -> None:
    quickstart = pages[f"{server.url}/guides/quickstart"]
    assert "<h1" in quickstart
    assert '<pre tabindex="0"><code class="language-sh">' in quickstart  # scrolls by keyboard
    assert 'aria-current="page"' in quickstart
    configuration = pages[f"{server.url}/guides/configuration"]
    assert "<table>" in configuration
    assert '<td data-title="default"><code>8000</code>' in configuration
    assert not [address for address, text in pages.items() if "<th></th>" in text]
    assert "<script" not in quickstart


def test_the_guides_may_load_nothing_from_elsewhere(server: Server) -> None:
    answer = httpx.get(f"{server.url}/guides/sdk")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self'")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_search_finds_sections_with_all_words(server: Server) -> None:
    text = httpx.get(f"{server.url}/guides", params={"q": "Cursor EPOCH"}).text
    results = re.findall(r'<a href="(guides/[^"]+#[^"]+)">', text)
    assert "guides/operations#epochs" in results
    assert "<p>- " not in text  # a list in an excerpt is only words
    assert "<mark>" in text
    page = httpx.get(urljoin(f"{server.url}/guides", results[0])).text
    assert f'id="{results[0].partition("#")[2]}"' in page


def test_results_are_counted_and_shown_as_whole_words_without_markup(server: Server) -> None:
    def results(query: str) -> tuple[str, list[str]]:
        text = httpx.get(f"{server.url}/guides", params={"q": query}).text
        lead = re.findall(r'<p class="lead">(.*?)</p>', text)[0]
        shown = re.findall(r"<p>(.*?)</p>", text, re.DOTALL)
        return lead, [re.sub(r"<[^>]+>", "", html.unescape(one)) for one in shown]

    lead, shown = results("the")
    assert len(shown) == 30
    assert re.match(r"The best 30 of \d{3} sections found", lead)
    _, shown = results("cursor")
    assert not [one for one in shown if "---" in one or "```" in one]
    excerpt = results("copies.pop")[1][0]  # in a block of code
    assert excerpt.startswith("…")
    assert "python" not in excerpt.split()
    first = excerpt.removeprefix("…").split()[0]
    guide = re.sub(r"<[^>]+>", "", httpx.get(f"{server.url}/guides/sdk").text)
    assert first in html.unescape(guide).split()


@pytest.mark.parametrize(
    "query", ["", " ", "zzzz", "<script>alert(1)</script>", "a" * 5000, "\0", "\u202e a"]
)
def test_whatever_is_searched_for_is_only_text(server: Server, query: str) -> None:
    answer = httpx.get(f"{server.url}/guides", params={"q": query})
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert len(answer.content) < 100_000


@pytest.mark.parametrize(
    "path",
    ["nothing", "a/b", "figures", "figures/no.svg", "..%2f..%2fx", "README", "figures/..%2fsdk.md"],
)
def test_what_is_no_guide_is_not_found(server: Server, path: str) -> None:
    answer = httpx.get(f"{server.url}/guides/{path}", headers=BROWSER)
    assert answer.status_code == 404
    assert 'href="/guides"' in answer.text


def test_a_slash_leads_to_the_guides(server: Server) -> None:
    answer = httpx.get(f"{server.url}/guides/", headers={"X-Forwarded-Prefix": "/tether"})
    assert (answer.status_code, answer.headers["location"]) == (308, "/tether/guides")
