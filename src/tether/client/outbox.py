"""The outbox: events go to the disk first, and to the server when the network allows."""

import threading
import time
from collections.abc import Iterable, Sequence
from logging import getLogger
from os import PathLike

from tether.client.bulk import event_result, refusal, retry_error
from tether.client.conversion import sendable
from tether.client.errors import Conflict, Invalid, TooLarge
from tether.client.events import EventCalls
from tether.client.exchange import NO_RETRIES, RetryPolicy, warning_text
from tether.client.forks import reset_after_fork
from tether.client.models import BulkResult, Doubt
from tether.client.outbox_file import DamagedEvent, OutboxFile, RefusedEvent, WaitingEvent
from tether.client.sync import Client
from tether.domain import models
from tether.domain.validation import MAX_BYTES

log = getLogger("tether.client.outbox")

MAX_BATCH = 1000
POLL_S = 1.0  # how often to look for events of other processes
_FLUSH_POLL_S = 0.02
_REFUSALS = (Invalid, Conflict, TooLarge)


class Outbox:
    """Stores events in a file and delivers them in order in the background, each exactly once.

    Any number of threads and processes may put events into the same file. One of them delivers at a
    time. If the outbox is closed, or its process is killed, the next outbox with this file delivers
    the waiting events. The outbox does not close the client.
    """

    def __init__(self, path: str | PathLike[str], client: Client) -> None:
        self._file = OutboxFile(path)
        self._client = client
        self._calls = EventCalls(NO_RETRIES, self._log_warnings)
        self._policy = RetryPolicy(0, base_s=0.25, cap_s=30.0)
        self._batch_size = MAX_BATCH
        self._logged: set[Doubt] = set()
        self._closing = False
        self.after_fork_in_child()
        self._wake_up()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """A child has no thread until it puts an event: the parent delivers waiting events."""
        self._failures = 0
        self._error: Exception | None = None
        self._put_signal = threading.Event()
        self._flush_signal = threading.Event()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def _wake_up(self) -> None:
        """Starts the thread if there is none, and wakes it up."""
        with self._start_lock:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="tether-outbox", daemon=True)
                self._thread.start()
        self._put_signal.set()

    def __enter__(self) -> "Outbox":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def put(self, event: models.Event) -> models.Event:
        """Stores an event and returns it, with its timestamp, when it is safe on the disk.

        An event without a timestamp happens now. Raises Invalid, and OutboxError if the event is
        not stored, for example because the disk is full.
        """
        stored = self._file.put(sendable(event))
        self._wake_up()
        return stored

    @property
    def depth(self) -> int:
        """How many events wait for delivery."""
        return self._file.depth()

    @property
    def error(self) -> Exception | None:
        """The error that stops the delivery now, such as Forbidden, or None."""
        return self._error

    @property
    def refused(self) -> list[RefusedEvent]:
        """The events that the server finally refused, with the reasons. They are kept."""
        return [one for one in self._file.set_aside() if isinstance(one, RefusedEvent)]

    @property
    def damaged(self) -> list[DamagedEvent]:
        """The damaged rows of the file. They are kept, and do not stop the delivery."""
        return [one for one in self._file.set_aside() if isinstance(one, DamagedEvent)]

    def requeue(self, refused: RefusedEvent) -> bool:
        """Delivers a refused event again, after all waiting ones. False if it does not exist."""
        found = self._file.requeue(refused.number)
        self._wake_up()
        return found

    def delete(self, refused: RefusedEvent | DamagedEvent) -> bool:
        """Deletes a refused event or a damaged row. False if it does not exist."""
        return self._file.delete(refused.number)

    def flush(self, timeout: float) -> bool:
        """Waits until all events so far are delivered or refused. False if that takes longer.

        If the delivery waits before its next try, it starts at once.
        """
        end, last = time.monotonic() + timeout, self._file.last()
        self._flush_signal.set()
        self._wake_up()
        while self._file.waits_up_to(last):
            if time.monotonic() >= end or self._closing:
                return False
            time.sleep(_FLUSH_POLL_S)
        return True

    def close(self) -> None:
        """Ends the delivery after the current request. Waiting events stay in the file."""
        self._closing = True
        self._put_signal.set()
        self._flush_signal.set()
        if self._thread is not None:
            self._thread.join()
        self._file.close()

    # The thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            self._put_signal.clear()
            self._flush_signal.clear()
            try:
                self._deliver_all()
            except Exception as error:  # the events stay in the file and are sent again
                self._report(error)
                retry_after = getattr(error, "retry_after", None)
                self._wait(self._flush_signal, self._policy.backoff(self._failures, retry_after))
            else:
                self._wait(self._put_signal, POLL_S)

    def _wait(self, signal: threading.Event, seconds: float) -> None:
        if not self._closing:
            signal.wait(seconds)

    def _deliver_all(self) -> None:
        """Delivers until no event waits. Raises any error."""
        with self._file.delivery_lock() as acquired:
            while acquired and not self._closing:
                batch = self._file.oldest(self._batch_size, MAX_BYTES)
                try:
                    if batch:
                        self._deliver(batch)
                except (Invalid, TooLarge):
                    if len(batch) == 1:
                        raise
                    self._batch_size = len(batch) // 2  # one bad event must not stop the others
                    continue
                self._failures, self._error = 0, None
                self._batch_size = MAX_BATCH
                if not batch and not self._file.depth():
                    return

    def _deliver(self, batch: list[WaitingEvent]) -> None:
        results, retry_after = self._send(batch)
        delivered, refused, retried = [], [], None
        for waiting, result in zip(batch, results, strict=True):
            if result.ok:
                delivered.append(waiting.number)
            elif _is_final(result):
                refused.append((waiting.number, result.status or 0, result.message or ""))
            else:
                retried = retried or result
        self._file.settle(delivered, refused)
        if delivered:
            self._failures = 0
        for number, status, message in refused:
            log.warning("Event %d was refused with status %d: %s", number, status, message)
        if retried:
            raise retry_error(retried, retry_after)

    def _send(self, batch: list[WaitingEvent]) -> tuple[Sequence[BulkResult], float]:
        if len(batch) == 1:
            event = batch[0].event
            try:
                stored = self._client._run(self._calls.post(event))
                return [BulkResult(event=event, status=201, id=stored)], 0
            except _REFUSALS:
                pass  # send it in bulk: only an item of a bulk answer is certainly about this event
        try:
            return self._client._run(self._calls.bulk.once([waiting.event for waiting in batch]))
        except TooLarge as error:
            if len(batch) > 1:
                raise
            return [event_result(batch[0].event, refusal(error))], 0

    def _log_warnings(self, warnings: Iterable[Doubt]) -> None:
        """Logs each warning once. It does not use Python's warnings, because they can be errors:
        then the delivery would fail for ever.
        """
        for warning in {*warnings} - self._logged:
            self._logged.add(warning)
            log.warning("%s", warning_text(warning))

    def _report(self, error: Exception) -> None:
        self._failures += 1
        if self._error is None or type(error) is not type(self._error):
            log.warning("Delivery is interrupted, the events are kept: %s", error)
        self._error = error


def _is_final(result: BulkResult) -> bool:
    """Whether the server will never take this event."""
    status = result.status or 0
    return 400 <= status < 500 and status not in (408, 429)
