"""Forks (multiprocessing, gunicorn --preload): a child opens its own connections.

Two processes that write to one connection would get each other's answers. A child must not close
inherited connections: a thread of the parent may have locked the pool during the fork, and the
child shares event loops and SQLite files with the parent.
"""

import ctypes

# Python imports this when it first looks up a host name. If a process forks during that import, its
# children cannot look up hosts: "unknown encoding: idna". So it is imported before all forks.
import encodings.idna  # noqa: F401
import os
import threading
from contextlib import suppress
from typing import Protocol, runtime_checkable
from weakref import WeakSet


class ForkAware(Protocol):
    """An object with connections, locks or threads."""

    def after_fork_in_child(self) -> None:
        """Called in a child: replaces them."""


@runtime_checkable
class ForkLock(ForkAware, Protocol):
    """An object that no other thread may use while the process forks."""

    def before_fork(self) -> None:
        """Waits until no thread uses it, and locks it."""

    def after_fork_in_parent(self) -> None:
        """Unlocks it in the parent."""


_known: WeakSet[ForkAware] = WeakSet()
_mutex = threading.Lock()
_held: list[ForkLock] = []


def reset_after_fork(thing: ForkAware) -> None:
    """Calls `after_fork_in_child` of this object in all children that this process forks."""
    with _mutex:
        _known.add(thing)


def leave_to_parent(inherited: object) -> None:
    """Keeps an inherited object alive, so that the child never closes it."""
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
