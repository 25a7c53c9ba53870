"""Finds ids and pages to read in a database full of events."""

import http.client
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from bench.contestants import Server
from bench.processes import StartError

STRIDE = 1000  # events between the beginnings of two of the pages
PAGE = 100  # events on a page that is measured: the default
MAX_PAGES = 1000  # at most so many from either end
IDS_OF_A_PAGE = 100
MAX_IDS = 100_000


@dataclass(frozen=True)
class Paths:
    """Two files with a path a line."""

    events: Path
    pages: Path


def sample_paths(server: Server, folder: Path, name: str) -> Paths:
    """Events and pages from both ends of the list, in random order, the same each time."""
    choice = random.Random(0)
    events: list[str] = []
    pages: list[str] = []
    for order in ("asc", "desc"):
        for address, ids in islice(_walk(server, order), MAX_PAGES):
            pages.append(address.replace(f"limit={STRIDE}", f"limit={PAGE}"))
            events += [f"/events/{one}" for one in choice.sample(ids, IDS_OF_A_PAGE)]
    choice.shuffle(pages)
    choice.shuffle(events)
    return Paths(
        write_lines(folder / f"{name}-events", events[:MAX_IDS]),
        write_lines(folder / f"{name}-pages", pages),
    )


def _walk(server: Server, order: str) -> Iterator[tuple[str, list[str]]]:
    """Every full page of the list: its address, and the ids on it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    address = f"/events?limit={STRIDE}&order={order}"
    while address:
        connection.request("GET", address, headers={"x-api-key": server.key})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise StartError(f"GET {address}: {answer.status} {body!r}")
        ids = [event["id"] for event in json.loads(body)]
        if len(ids) < STRIDE:
            break
        yield address, ids
        address = _next(answer.headers.get("Link", ""))
    connection.close()


def _next(link: str) -> str:
    """Path and query of `<address>; rel="next"`."""
    found = re.match(r'<([^>]*)>; *rel="?next"?', link)
    if found is None:
        return ""
    parts = urlsplit(found[1])
    return f"{parts.path}?{parts.query}"


def write_lines(file: Path, lines: list[str]) -> Path:
    """Writes the lines; returns the file."""
    file.write_text("\n".join(lines) + "\n")
    return file
