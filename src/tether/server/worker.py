"""One of several server processes; supervisor.py starts it as `python -m tether.server.worker`."""

import os
import signal
import socket
import sys

import uvloop

from tether.server import logging
from tether.server.metrics import Metrics
from tether.server.run import listen, meanwhile, serve
from tether.server.worker_link import SETTINGS, Link, Supervision


def main() -> None:
    """Serves by the settings that its supervisor sends until told to stop or that is gone."""
    uvloop.run(_work())


async def _work() -> None:
    link = await Link.over(socket.fromfd(sys.stdin.fileno(), socket.AF_UNIX, socket.SOCK_STREAM))
    begin = await link.receive(SETTINGS)
    if begin is None:  # the supervisor was killed meanwhile
        return
    settings = begin.settings
    logging.configure(level=settings.log_level, as_json=settings.log_format != "text")
    supervision = Supervision(link)
    metrics = Metrics(supervision.total, by_partner=settings.metrics_by_partner)
    async with meanwhile(_follow(supervision, metrics)):
        with listen(settings.host, settings.port, shared=True) as listener:
            await serve(settings, metrics, listener, supervision.ready)


async def _follow(supervision: Supervision, metrics: Metrics) -> None:
    await supervision.follow(metrics.own_page)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
