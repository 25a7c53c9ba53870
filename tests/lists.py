"""Reads lists of the API page by page."""

from collections.abc import Iterator
from typing import Any

import httpx


def pages(client: httpx.Client, path: str, **query: Any) -> Iterator[list[Any]]:
    """All pages of a list, by the Link header, up to the end or an empty page."""
    answer = client.get(path, params=query or None)
    while True:
        assert answer.status_code == 200, answer.text
        page = answer.json()
        yield page
        if "next" not in answer.links or not page:
            return
        answer = client.get(answer.links["next"]["url"])


def everything(client: httpx.Client, path: str, **query: Any) -> list[Any]:
    """All entries of a list."""
    return [entry for page in pages(client, path, limit=1000, **query) for entry in page]
