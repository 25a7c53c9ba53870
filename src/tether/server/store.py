"""The store: all that is kept in one database, and what works on it."""

from collections.abc import Callable, Mapping

from tether.ingest.event_batcher import EventBatcher
from tether.ingest.unit_doubts import UnitDoubts
from tether.projections.change_feed import ChangeFeed
from tether.projections.flexibility import Capacities
from tether.projections.projector import Projector
from tether.projections.rebuild import Rebuilder
from tether.storage.engine import Connections, Engine, Size
from tether.storage.entities import Entities
from tether.storage.epochs import Epochs
from tether.storage.events import Events
from tether.storage.keys import Keys
from tether.storage.partners import PING, Partners
from tether.storage.plugged_in import PluggedIn
from tether.storage.sessions import Sessions
from tether.storage.states import States
from tether.storage.turns import LoopTurns, Turns

# Lists that are being read and put together: each may be megabytes.
ANSWERS_AT_ONCE, ANSWERS_OF_EACH = 16, 2


class Store:
    """One database: a part for each subject, of which each has its statements.

    Every method of every part raises Unavailable while the database cannot be used. Those on
    partner data see the given partner's only.
    """

    def __init__(
        self,
        engine: Engine,
        now_ms: Callable[[], int],
        new_event_id: Callable[[], str],
        on_progress: Callable[[int, int], None] = lambda committed, waiting: None,
        *,
        on_waiting: Callable[[int, float], None] = lambda waiting, lag_s: None,
        on_failure: Callable[[int, Exception], None] = lambda partner, error: None,
        on_refusal: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._engine = engine
        self.partners = Partners(engine)
        self.keys = Keys(engine)
        self.entities = Entities(engine)
        self.events = Events(engine)
        self.sessions = Sessions(engine)
        self.states = States(engine)
        self.epochs = Epochs(engine)
        self.loop_turns = LoopTurns()
        self.turns = Turns(ANSWERS_AT_ONCE, ANSWERS_OF_EACH, on_refusal)
        # Apart, so that they go on while the events are locked.
        self.entity_turns = Turns(ANSWERS_AT_ONCE, ANSWERS_OF_EACH, on_refusal)
        self.projector = Projector(
            engine, now_ms, on_waiting, on_failure, share=self.loop_turns.share
        )
        self.batcher = EventBatcher(
            self.events, now_ms, new_event_id, on_progress, self.projector.notice,
            apply_backpressure=self.projector.apply_backpressure,
        )  # fmt: skip
        self.doubts = UnitDoubts(self.entities)
        self.rebuilder = Rebuilder(self.entities, self.projector)
        self.feed = ChangeFeed(self.events, self.states, self.projector)
        self.capacities = Capacities(PluggedIn(engine), self.events, self.projector)

    async def close(self) -> None:
        """Finishes the writes under way and lets go of the database."""
        self.feed.close()
        await self.batcher.drain()
        await self.entities.drain()
        await self.projector.close()
        await self._engine.close()

    async def size(self) -> Size:
        """How large the database is."""
        return await self._engine.size()

    def connections(self) -> Mapping[str, Connections]:
        """The connections to the database's server, by purpose."""
        return self._engine.connections()

    async def ping(self) -> None:
        """Returns if the database answers."""
        await self._engine.ping(PING)
