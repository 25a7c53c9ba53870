"""`tether`, with a record of our files that it enters: `traced.py FILE serve …`.

Adds a line of JSON to FILE for each request, from its first byte to the end of its answer, or one
line for a whole command: the names of the files, in the order in which they are entered.
Calls while a module is imported do not count.
"""

import atexit
import json
import sys
import threading
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import FrameType

import tether
from tether.__main__ import main

OURS = f"{Path(tether.__file__).parent}/"
FILE = Path(sys.argv.pop(1))
SERVES = sys.argv[1] == "serve"

entered: list[str] = []
recording = threading.Event()
known: dict[int, FrameType] = {}  # a coroutine is reported again when it continues


def tell() -> None:
    with FILE.open("a") as file:
        file.write(json.dumps(entered) + "\n")


def look(frame: FrameType, event: str, _: object) -> None:
    code = frame.f_code
    if event != "call" or not code.co_filename.startswith(OURS):
        return
    # A body may come apart from its head.
    if SERVES and code.co_name == "data_received" and not recording.is_set():  # asyncio's name
        recording.set()
        entered.clear()
        known.clear()
    if not recording.is_set() or id(frame) in known:
        return
    known[id(frame)] = frame
    if code.co_flags & CO_OPTIMIZED and not is_import(frame) and caller(frame) != code.co_filename:
        entered.append(code.co_filename.removeprefix(OURS))
    if SERVES and code.co_name == "on_response_complete":  # Uvicorn's
        recording.clear()
        tell()


def is_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(OURS):
            return True
        frame = frame.f_back
    return False


def caller(frame: FrameType) -> str | None:
    """The file of our function that called this, directly or through a library."""
    before = frame.f_back
    while before is not None and not before.f_code.co_filename.startswith(OURS):
        before = before.f_back
    return before.f_code.co_filename if before else None


if not SERVES:
    recording.set()
    atexit.register(tell)
threading.setprofile(look)
sys.setprofile(look)
main()
