"""One of several server processes; supervisor.py starts it as `python -m tether.worker`."""

import asyncio
import os
import signal
import sys

import msgspec
import uvloop

from tether import logs
from tether.config import Settings
from tether.server import listen, serve

READY = b"ready\n"


def main() -> None:
    """Reads its settings from standard input, and serves until told to stop or that input ends."""
    line = sys.stdin.buffer.readline()
    if not line:  # the supervisor was killed meanwhile
        return
    settings = msgspec.json.decode(line, type=Settings)
    logs.configure(level=settings.log_level, as_json=settings.log_format != "text")
    uvloop.run(_work(settings))


async def _work(settings: Settings) -> None:
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _stop_if_alone)
    with listen(settings.host, settings.port, shared=True) as listener:
        await serve(settings, listener, _say_ready)


def _say_ready() -> None:
    os.write(sys.stdout.fileno(), READY)


def _stop_if_alone() -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
