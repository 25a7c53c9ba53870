"""The calls of calls.ts, with the client of openapi-python-client."""

import datetime
import json
import sys

from tether_partner_api_client import AuthenticatedClient
from tether_partner_api_client.api.chargers import patch_charger, put_charger
from tether_partner_api_client.api.events import create_event, create_events, list_events
from tether_partner_api_client.api.live_state import get_charger_state
from tether_partner_api_client.api.vehicles import get_vehicle, put_vehicle
from tether_partner_api_client.models import (
    ChargerPatch,
    ChargerPut,
    ChargerState,
    Created,
    Error,
    EventCreated,
    EventType,
    VehicleConnected,
    VehiclePut,
)

url, key = sys.argv[1:]
client = AuthenticatedClient(url, token=key, prefix="", auth_header_name="x-api-key")

charger = put_charger.sync(
    "C1408",
    client=client,
    body=ChargerPut(charge_powers=[11, 22], latitude=62.268302, longitude=17.448415),
)
vehicle = put_vehicle.sync(
    "V0313", client=client, body=VehiclePut(charge_capacity=74.8, charge_powers=[11])
)
plugged = VehicleConnected(
    type_="VEHICLE_CONNECTED", charger_id="C1408", vehicle_id="V0313", state_of_charge=22.0,
    timestamp=datetime.datetime.fromisoformat("2023-05-11T22:06:40.738+00:00"),
)  # fmt: skip
event = create_event.sync(client=client, body=plugged)
many = create_events.sync(
    client=client, body=[plugged, VehicleConnected("VEHICLE_CONNECTED", "C2", "V0313")]
)
events = list_events.sync(client=client, type_=EventType.VEHICLE_CONNECTED)
patched = patch_charger.sync_detailed(
    "C1408", client=client, body=ChargerPatch(latitude=None, longitude=None)
)
state = get_charger_state.sync("C1408", client=client)
unknown = get_vehicle.sync("nobody", client=client)

assert isinstance(charger, Created)
assert isinstance(vehicle, Created)
assert isinstance(event, EventCreated)
assert isinstance(many, list)
assert isinstance(events, list)
assert isinstance(state, ChargerState)
assert isinstance(unknown, Error)
again, refused = many
print(
    json.dumps(
        {
            "charger": charger.id,
            "vehicle": vehicle.id,
            "event": str(event.id),
            "again": str(again.id),
            "refused": refused.status,
            "listed": [str(one.id) for one in events],
            "patched": patched.status_code,
            "stateOfCharge": state.vehicles[0].state_of_charge,
            "unknown": unknown.message,
        }
    )
)
