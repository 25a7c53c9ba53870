"""The examples of the public reference, word for word, with the answers that it names.

Copied from `partner-api.txt`, not typed: stray commas, spaces and old names are in the reference.
"""

from typing import NamedTuple


class Curl(NamedTuple):
    """A curl command, the status and, where the reference prints one, the body of its answer."""

    command: str
    status: int
    body: str = ""


CHARGER_CURLS = [
    Curl(
        """\
curl 'https://api.tetherev.io/chargers/C0229' \\
    -X PUT \\
    -H 'x-api-key: {your-api-key}' \\
    -d '
    {
      "id": "C0229",
      "chargePowers": [ 11 ],
      "latitude": 62.268302,
      "longitude": 17.448415
    }'""",
        201,
        """\
{
  "id": "C0229"
}""",
    ),
    Curl(
        """\
curl 'https://api.tetherev.io/chargers/C0229' \\
    -X PATCH \\
    -H 'x-api-key: {your-api-key}' \\
    -d '
    {
      "chargePowers": [ 11, 22 ],
    }'""",
        200,
    ),
    Curl(
        """\
curl 'https://api.tetherev.io/chargers/C0229' \\
  -H 'x-api-key: {your-api-key}'""",
        200,
        """\
{
  "id": "C0229",
  "chargePowers": [ 11, 22 ],
  "latitude": 62.268302,
  "longitude": 17.448415
}""",
    ),
]

VEHICLE_CURLS = [
    Curl(
        """\
curl 'https://api.tetherev.io/vehicles/V0313' \\
  -X PUT \\
  -H 'x-api-key: {your-api-key}' \\
  -d '
  {
    "id": "V0313",
    "chargeCapacity": 74.8,
    "chargePowers": [ 11 ]
  }'""",
        201,
        """\
{
  "id": "V0313"
}""",
    ),
    Curl(
        """\
curl 'https://api.tetherev.io/vehicles/V0313' \\
  -X PATCH \\
  -H 'x-api-key: {your-api-key}' \\
  -d '
  {
    "chargePowers": [ 11, 22 ]
  }'""",
        200,
    ),
    Curl(
        """\
curl 'https://api.tetherev.io/vehicles/V0313' \\
  -H 'x-api-key: {your-api-key}'""",
        200,
        """\
{
  "id": "V0313",
  "chargeCapacity": 74.8,
  "chargePowers": [ 11, 22 ]
}""",
    ),
]

# The id in the second command is the one in the first one's answer, as a reader would put it there.
EVENT_CURLS = [
    Curl(
        """\
curl 'https://api.tetherev.io/events' \\
  -X POST \\
  -H 'x-api-key: {your-api-key}' \\
  -d '
  {
    "type": "VEHICLE_CONNECTED",
    "chargerId": "C1408",
    "vehicleId": "V0313",
    "stateOfCharge": 22.0,
    "timestamp": "2023-05-11T22:06:40.738Z"
  }'""",
        201,
        """\
{
  "id": "b8ae8cae-8fe0-4cd4-8394-76ead74e2258"
}""",
    ),
    Curl(
        """\
curl 'https://api.tetherev.io/events/b8ae8cae-8fe0-4cd4-8394-76ead74e2258' \\
  -H 'x-api-key: {your-api-key}'""",
        200,
        """\
{
  "id": "a0b20ee7-2720-46e9-bb1f-3be28e69ca03",
  "type": "VEHICLE_CONNECTED",
  "chargerId": "C1408",
  "vehicleId": "V0313",
  "stateOfCharge": 22.0,
  "timestamp": "2023-05-11T22:06:40.738Z"
}""",
    ),
]

CHARGERS_PUT = [
    """\
{
  "chargePowers": [ 11 ],
  "latitude": 62.268302,
  "longitude": 17.448415
}""",
    """\
{
  "minChargePower": 11,
  "maxChargePower": 22,
}""",
    """\
{
  "id": "C1408",
  "chargePowers": [ 11, 22 ],
  "dischargePowers": [ 11, 22 ],
  "latitude": 62.268302,
  "longitude": 17.448415
}""",
]

CHARGERS_PATCH = [
    """\
{
  "chargePowers": [ 11 ],
}""",
    """\
{
  "minChargePower": 11,
  "maxChargePower": 22,
}""",
    """\
{
  "chargePowers": [ 11, 22 ],
  "longitude": 17.448415
}""",
]

CHARGERS_GET = [
    """\
{
  "id": "C0229",
  "chargePowers": [ 11 ],
  "latitude": 62.268302,
  "longitude": 17.448415
}""",
    """\
{
  "id": "C0216",
  "minChargePower": 11,
  "maxChargePower": 22,
}""",
    """\
{
  "id": "C1408",
  "chargePowers": [ 11, 22 ],
  "dischargePowers": [ 11, 22 ],
  "latitude": 62.268302,
  "longitude": 17.448415
}""",
]

VEHICLES_PUT = [
    """\
{
  "chargeCapacity": 74.8,
  "chargePowers": [ 11 ]
}""",
    """\
{
  "chargeCapacity": 48.6,
  "minChargePower": 11,
  "maxChargePower": 22
}""",
    """\
{
  "id": "V0849",
  "chargeCapacity": 119.2,
  "chargePowers": [ 22 ],
  "dischargePowers": [ 22 ]
}""",
]

VEHICLES_PATCH = [
    """\
{
  "chargeCapacity": 74.8,
}""",
    """\
{
  "minChargePower": 11,
}""",
    """\
{
  "chargePowers": [ 22 ],
  "dischargePowers": [ 22 ]
}""",
]

VEHICLES_GET = [
    """\
{
  "id": "V0313",
  "chargeCapacity": 74.8,
  "chargePowers": [ 11 ]
}""",
    """\
{
  "id": "V1863",
  "chargeCapacity": 48.6,
  "minChargePower": 11,
  "maxChargePower": 22
}""",
    """\
{
  "id": "V0849",
  "chargeCapacity": 119.2,
  "chargePowers": [ 22 ],
  "dischargePowers": [ 22 ]
}""",
]

EVENTS_POST = [
    """\
{
  "type": "VEHICLE_CONNECTED",
  "chargerId": "C1408",
  "vehicleId": "V0313",
  "stateOfCharge": 25.6,
  "timestamp": "2023-05-11T22:06:40.738Z"
}""",
    """\
{
  "type": "VEHICLE_DISCONNECTED",
  "chargerId": "C1408",
  "vehicleId": "V0313",
  "stateOfCharge": 95.6,
  "timestamp": "2023-05-11T22:06:40.738Z"
}""",
    """\
{
  "type": "VEHICLE_CHARGE_STARTED",
  "chargerId": "C1408",
  "vehicleId": "V0313",
  "stateOfCharge": 25.6,
  "chargePower": 11.0,
  "timestamp": "2023-05-11T22:06:46.276Z"
}""",
    """\
{
  "type": "VEHICLE_CHARGE_STOPPED",
  "chargerId": "C1408",
  "vehicleId": "V0313",
  "chargedEnergy": 58.3,
  "chargeTime": 27658.362,
  "stateOfCharge": 95.6,
  "timestamp": "2023-05-12T07:42:12.110Z"
}""",
    """\
{
  "type": "VEHICLE_CHARGE_UPDATED",
  "chargerId": "C1408",
  "vehicleId": "V0313",
  "stateOfCharge": 49.1,
  "chargePower": 11.0,
  "timestamp": "2023-05-11T23:09:11.387Z"
}""",
]

EVENT_GET = """\
{
  "id": "a0b20ee7-2720-46e9-bb1f-3be28e69ca03",
  "type": "VEHICLE_CONNECTED",
  "chargerId": "C1408",
  "vehicleId": "V0313",
  "stateOfCharge": 25.6,
  "timestamp": "2023-05-11T22:06:40.738Z"
}"""
