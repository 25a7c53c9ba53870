"""What vehicle and charger can do together, and of which vehicles something is not known."""

from functools import lru_cache
from typing import NamedTuple

import msgspec

from tether.domain.course import condition_of
from tether.domain.flexibility import Pair, pair_of, share_of
from tether.domain.models import Charger, Vehicle, from_json
from tether.domain.session_record import SessionRecord
from tether.storage.plugged_in import PluggedIn
from tether.storage.turns import Rest

PAGE = 100  # sessions that are read at once
LONGEST_KEPT = 1000  # characters of a charger and a vehicle, of which it is kept what they can do

_sessions = msgspec.json.Decoder(SessionRecord)


class Lacking(NamedTuple):
    """A vehicle that is plugged in, of which something is not known."""

    vehicle_id: str
    charger_id: str


async def lacking(plugged_in: PluggedIn, partner: int, most: int) -> dict[str, list[Lacking]]:
    """Of each unknown of `UnknownCapacity` that is a vehicle's the first vehicles, by charger."""
    found: dict[str, list[Lacking]] = {
        "state_of_charge": [],
        "charge_power": [],
        "common_charge_power": [],
        "common_discharge_power": [],
    }
    rest = Rest()
    async for page in plugged_in.now(partner, "", "\x7f", PAGE):
        for one in page:
            await rest.if_long()
            if not one.vehicle or not one.charger:  # the partner is being deleted
                continue
            session = _sessions.decode(one.body)
            share = share_of(pair_of_bodies(one.charger, one.vehicle), condition_of(session))
            lacks = share.no_soc, share.no_power, share.no_common_charge, share.no_common_discharge
            for vehicles, lacks_it in zip(found.values(), lacks, strict=True):
                if lacks_it and len(vehicles) < most:
                    vehicles.append(Lacking(session.vehicle_id, session.charger_id))
        if all(len(vehicles) == most for vehicles in found.values()):
            break
    return found


def pair_of_bodies(charger: str, vehicle: str) -> Pair:
    """What a charger and a vehicle can do together, by their JSON.

    Fleets are many of few kinds, so what was found once is kept for the next of the same kind.
    """
    is_usual = len(charger) + len(vehicle) <= LONGEST_KEPT  # each may have hundreds of long numbers
    # The id comes first in both, the position last: neither matters.
    return (_pair_of_kinds if is_usual else _pair_of_kinds.__wrapped__)(
        charger.partition(",")[2].partition(',"latitude"')[0].rstrip("}"), vehicle.partition(",")[2]
    )


@lru_cache(maxsize=4096)
def _pair_of_kinds(charger: str, vehicle: str) -> Pair:
    return pair_of(
        from_json(Charger, f'{{"id":"",{charger}}}'), from_json(Vehicle, f'{{"id":"",{vehicle}')
    )
