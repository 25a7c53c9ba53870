# Made from aio_stream.py by scripts/unasync.py: change that, then `make unasync`.
"""The stream, for the blocking client."""

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from tether.client.blocking import sleep
from tether.client.exchange import Answer
from tether.client.forks import anew_in_children, leave_to_parent
from tether.client.streaming import Interrupted, Message, Subscription

if TYPE_CHECKING:
    from tether.client.blocking import Http


class Stream(Iterator[Message]):
    """An endless iterator of events and states. `cursor` is the place after the last one it gave.

    Raises what makes waiting useless, such as Forbidden for a key that works no more. A task that
    waits for the next one may be cancelled: nothing is lost by that.
    """

    def __init__(self, http: "Http", wanted: Subscription) -> None:
        self._http = http
        self._wanted = wanted
        self._messages: Generator[Message | None] | None = None
        anew_in_children(self)

    def forked(self) -> None:
        """The connection is the parent's: this process makes one, at the same place."""
        leave_to_parent(self._messages)
        self._messages = None

    @property
    def cursor(self) -> str | None:
        """The place after the last message, for `stream`; None before it is connected."""
        return self._wanted.cursor

    @property
    def interrupted(self) -> bool:
        """Whether an outage lasts, while it tries again by itself."""
        return self._wanted.in_outage

    def __enter__(self) -> "Stream":
        self._next()  # the first thing that the server sends is the place
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __next__(self) -> Message:
        while True:
            message = self._next()
            if message is not None:
                return message

    def close(self) -> None:
        """Closes the connection; to go on reading makes a new one."""
        if self._messages is not None:
            self._messages.close()
            self._messages = None

    def _next(self) -> Message | None:
        if self._messages is None:
            self._messages = self._run()
        try:
            return next(self._messages)
        except BaseException:  # the connection is gone, but not the place
            self._messages = None
            raise

    def _run(self) -> Generator[Message | None]:
        wanted = self._wanted
        while True:
            try:
                with self._http.open(wanted.request()) as opened:
                    if isinstance(opened, Answer):
                        seconds = wanted.refused(opened)
                    else:
                        wanted.check(opened.headers)
                        for data in opened.body:
                            for message in wanted.received(data):
                                yield message
                        seconds = wanted.ended()
            except Interrupted as error:
                seconds = wanted.interrupted(error.lost)
            sleep(seconds)
