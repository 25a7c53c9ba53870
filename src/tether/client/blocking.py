"""Waiting and HTTP for the blocking client. `awaiting.py` has the same names for the other."""

import threading
import time

from tether.client.blocking_http import BlockingHttp as Http

__all__ = ["Http", "Stop", "http_to", "sleep", "wait"]

Stop = threading.Event
sleep = time.sleep
http_to = Http


def wait(stop: Stop, seconds: float) -> None:
    """Waits until `stop` is set, at most so many seconds."""
    stop.wait(seconds)
