import httpx


def test_a_newcomer_stores_a_charger_a_vehicle_and_an_event(client: httpx.Client) -> None:
    charger = client.put("/chargers/C1", content='{"chargePowers": [11, 22.0],}')
    assert (charger.status_code, charger.json()) == (201, {"id": "C1"})
    vehicle = client.put("/vehicles/V1", json={"chargeCapacity": 74.8, "chargePowers": [11]})
    assert vehicle.status_code == 201
    body = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}
    event = client.post("/events", json=body)
    assert event.status_code == 201
    assert [found["id"] for found in client.get("/events").json()] == [event.json()["id"]]
    assert client.get("/chargers/C1").text == '{"id":"C1","chargePowers":[11,22.0]}'
