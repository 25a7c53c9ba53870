"""What a process has open stays its own when it forks (multiprocessing, gunicorn --preload).

Two processes that write to one connection get each other's answers, so the child begins with new
ones. It must not close what it inherited either: a pool may have been locked at that moment by a
thread which the child does not have, an event loop and a SQLite file are shared with the parent.
"""

import ctypes

# Python imports this at the first look-up of a host name. A process that forks while a thread of it
# does so has children that never find a host: "unknown encoding: idna". Nothing remains to import.
import encodings.idna  # noqa: F401
import os
import threading
from contextlib import suppress
from typing import Protocol, runtime_checkable
from weakref import WeakSet


class ForkAware(Protocol):
    """Something that has connections, locks or threads."""

    def after_fork_in_child(self) -> None:
        """Called in a child: begins anew."""


@runtime_checkable
class ForkLock(ForkAware, Protocol):
    """Something of which no other thread may be in the middle when the process forks."""

    def before_fork(self) -> None:
        """Waits until nothing is under way, and lets nothing begin."""

    def after_fork_in_parent(self) -> None:
        """Goes on, in the parent."""


_known: WeakSet[ForkAware] = WeakSet()
_mutex = threading.Lock()
_held: list[ForkLock] = []


def reset_after_fork(thing: ForkAware) -> None:
    """From now on every child of this process begins anew with this thing."""
    with _mutex:
        _known.add(thing)


def leave_to_parent(inherited: object) -> None:
    """Lets something live for ever, so that it is not even closed when the child ends."""
    if inherited is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


def _before() -> None:
    _mutex.acquire()
    _held[:] = [thing for thing in _known if isinstance(thing, ForkLock)]
    for thing in _held:
        thing.before_fork()


def _in_parent() -> None:
    for thing in _held:
        thing.after_fork_in_parent()
    _held.clear()
    _mutex.release()


def _in_child() -> None:
    _held.clear()
    _mutex.release()
    for thing in list(_known):
        thing.after_fork_in_child()


with suppress(AttributeError):  # where there is no fork
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
