"""What the blocking client waits with. `awaiting.py` has the same names for the awaiting one."""

import threading
import time

from tether.client.blocking_http import BlockingHttp as Http

__all__ = ["Http", "Stop", "http_to", "sleep", "wait"]

Stop = threading.Event
sleep = time.sleep
http_to = Http


def wait(stop: Stop, seconds: float) -> None:
    """Waits until it is set, but not longer."""
    stop.wait(seconds)
