"""What maps show: where the chargers of a partner stand, and what they do now; as JSON."""

import msgspec
from falcon.asgi import Request, Response

from tether.console.users import partner_of
from tether.domain.models import Charger
from tether.server.store import Store
from tether.storage.turns import TimeSlice, Turns

MOST_PLACES = 20_000
PAGE = 1_000
DIGITS = 5  # of a degree: a meter
AT_ONCE, OF_EACH = 4, 1


class _Position(msgspec.Struct):
    """Of a charger only where it stands; quicker than the whole."""

    latitude: float | None = None
    longitude: float | None = None


_position = msgspec.json.Decoder(_Position)


class PlacesResource:
    """`…/map/places`: `places` have id, longitude and latitude; so many are `without` a position.

    There are `more` than a map can show.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns = Turns(AT_ONCE, OF_EACH)

    async def on_get(self, req: Request, resp: Response) -> None:
        parts, count, without, after, time_slice = [], 0, 0, "", TimeSlice()
        async with self._turns.of(partner_of(req).id):
            while count < MOST_PLACES:
                found = await self._store.entities.page(
                    Charger, partner_of(req).id, after, min(PAGE, MOST_PLACES - count)
                )
                places = []
                for charger_id, body in found:
                    at = _position.decode(body)
                    if at.latitude is None or at.longitude is None:
                        without += 1
                    else:
                        where = round(at.longitude, DIGITS), round(at.latitude, DIGITS)
                        places.append((charger_id, *where))
                    await time_slice.yield_if_over()
                if places:
                    parts.append(msgspec.json.encode(places)[1:-1])
                count += len(found)
                after = found[-1][0] if found else after
                if len(found) < PAGE:
                    break
        more = count >= MOST_PLACES and bool(
            await self._store.entities.page(Charger, partner_of(req).id, after, 1)
        )
        end = msgspec.json.encode({"without": without, "more": more})[1:]
        resp.content_type = "application/json"
        resp.data = b'{"places":[' + b",".join(parts) + b"]," + end


class StatesResource:
    """`…/map/states`: the ids of the chargers at which vehicles are `charging`, or `plugged` in."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns = Turns(AT_ONCE, OF_EACH)

    async def on_get(self, req: Request, resp: Response) -> None:
        async with self._turns.of(partner_of(req).id):
            found = await self._store.fleet.occupied(partner_of(req).id)
        resp.content_type = "application/json"
        resp.data = msgspec.json.encode(
            {
                "charging": [charger_id for charger_id, charging in found if charging],
                "plugged": [charger_id for charger_id, charging in found if not charging],
            }
        )
