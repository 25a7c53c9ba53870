"""Programs that fork while they use a client: `python -m tests.abuse.forking NAME URL KEY …`.

Each ends with status 0 if parent and children all got the answers to their own requests.
"""

import asyncio
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tether.client import AsyncClient, Client, Event, Outbox, TetherError

CHILDREN = 4
CALLS = 50


def in_children(work: Callable[[int], None], number: int = CHILDREN) -> list[int]:
    """Does this in children, each with its number."""
    pids = []
    for child in range(1, number + 1):
        pid = os.fork()
        if pid == 0:
            work(child)
            sys.exit(0)  # in order, because the inherited objects are closed, too
        pids.append(pid)
    return pids


def check(pids: list[int]) -> None:
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "a child failed"


def ask(client: Client, who: int) -> None:
    """Sends a request that no other process sends, and checks that its own answer comes."""
    for call in range(CALLS):
        id = f"P{who}-{call}"
        found = client.chargers.get(id).id
        assert found == id, f"{who} asked for {id} and got {found}"


async def ask_together(client: AsyncClient, who: int) -> None:
    async def one(call: int) -> None:
        id = f"P{who}-{call}"
        found = (await client.chargers.get(id)).id
        assert found == id, f"{who} asked for {id} and got {found}"

    await asyncio.gather(*map(one, range(CALLS)))


def update(number: int, who: int = 0) -> Event:
    """An event at its own charger, because another process may give the same time."""
    return Event(
        type="VEHICLE_CHARGE_UPDATED",
        charger_id=f"P{who}-0",
        vehicle_id="V1",
        state_of_charge=50,
        charged_time=number,
    )


# Programs -----------------------------------------------------------------------------------------


def imports(url: str, key: str) -> None:
    """Calls import nothing: a child cannot finish what a thread of its parent began to import."""
    before = set(sys.modules)
    with Client(url, key) as client:
        ask(client, 0)
        client.events.post(update(0))
    assert set(sys.modules) == before, set(sys.modules) - before


def plain(url: str, key: str) -> None:
    """As gunicorn --preload: a client at the top, used before and after the forks."""
    client = Client(url, key)
    ask(client, 0)
    pids = in_children(lambda child: ask(client, child))
    ask(client, 0)
    check(pids)
    ask(client, 0)


def processes(url: str, key: str) -> None:
    """As Celery: multiprocessing makes the children."""
    client = Client(url, key)
    ask(client, 0)
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=ask, args=(client, who)) for who in range(1, CHILDREN + 1)]
    for child in children:
        child.start()
    ask(client, 0)
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * CHILDREN


def threads(url: str, key: str) -> None:
    """When the process forks, threads are in the middle of calls and hold locks."""
    client, stop = Client(url, key), threading.Event()

    def work(who: int) -> None:
        while not stop.is_set():
            client.events.post(update(who))
            ask(client, who)

    others = [threading.Thread(target=work, args=(who,), daemon=True) for who in range(4)]
    for other in others:
        other.start()

    def do(child: int) -> None:
        ask(client, child)
        client.events.post(update(child, child))
        os._exit(0)

    for _ in range(3):
        check(in_children(do))
    stop.set()
    for other in others:
        other.join()


def awaiting(url: str, key: str) -> None:
    """The first loop has ended when the children begin theirs; the parent may not begin another."""
    client = AsyncClient(url, key)
    asyncio.run(ask_together(client, 0))

    async def do(child: int) -> None:
        async with client:
            await ask_together(client, child)

    check(in_children(lambda child: asyncio.run(do(child))))
    with pytest.raises(TetherError, match=r"event loop.*asyncio\.run"):
        asyncio.run(ask_together(client, 0))
    asyncio.run(client.close())


def posting(url: str, key: str) -> None:
    """Posts share requests, while a child does the same in its own event loop."""
    client = AsyncClient(url, key)

    async def post(who: int) -> None:
        await asyncio.gather(
            *(client.events.post(update(1000 * who + call, who)) for call in range(CALLS))
        )

    def child(who: int) -> None:
        asyncio.run(post(who))
        os._exit(0)

    async def parent() -> None:
        posts = asyncio.create_task(post(0))
        await asyncio.sleep(0.01)
        pids = [forked(child, who) for who in range(1, CHILDREN + 1)]
        await posts
        await asyncio.to_thread(check, pids)
        await client.close()

    asyncio.run(parent())


def forked(work: Callable[[int], None], who: int) -> int:
    """Forks a child inside a running loop; the child has no running loop."""
    pid = os.fork()
    if pid == 0:
        threading.Thread(target=work, args=(who,)).start()
        threading.Event().wait(60)
        os._exit(1)
    return pid


def stream(url: str, key: str) -> None:
    """Parent and child continue one stream, each on its own connection."""
    client = Client(url, key)
    messages = client.stream("start")
    assert isinstance(next(message for message in messages if isinstance(message, Event)), Event)

    def read(child: int) -> None:
        numbers = []
        for message in messages:
            if isinstance(message, Event):
                numbers.append(int(message.charged_time or 0))
            if len(numbers) == CALLS:
                break
        assert numbers == list(range(1, CALLS + 1)), numbers

    pids = in_children(read, 2)
    for number in range(1, CALLS + 1):
        client.events.post(update(number))
    read(0)
    check(pids)


def outbox(url: str, key: str, path: str) -> None:
    """Parent and children use one outbox; the last one delivers when the others have ended."""
    client = Client(url, key)
    box = Outbox(Path(path), client)
    box.put(update(0))

    def put(child: int) -> None:
        for number in range(CALLS):
            box.put(update(1000 * child + number))
        assert box.flush(30)
        box.close()

    pids = in_children(put)
    assert box.flush(30)
    box.close()
    check(pids)
    check(in_children(lambda child: None, 1))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
