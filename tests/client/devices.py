"""Numbered events, and a check that each was stored once and in order."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from tether.client import Charger, Client, Event, EventType, Vehicle

CHARGER, VEHICLE = "C1", "V1"


def vehicles(count: int) -> list[str]:
    """Ids of that many vehicles."""
    return [f"V{number}" for number in range(1, count + 1)]


def create_fleet(client: Client, count: int) -> list[str]:
    """Charger C1 and that many vehicles."""
    client.chargers.put(Charger(id=CHARGER, charge_powers=[11]))
    for vehicle in vehicles(count):
        client.vehicles.put(Vehicle(id=vehicle, charge_capacity=50, charge_powers=[11]))
    return vehicles(count)


def connected(vehicle: str = VEHICLE) -> Event:
    """An event without a timestamp."""
    return Event(type=EventType.VEHICLE_CONNECTED, charger_id=CHARGER, vehicle_id=vehicle)


def update(number: int, vehicle: str = VEHICLE, timestamp: str | None = None) -> Event:
    """An event with a number (as its energy, in kWh), by default without a timestamp."""
    return Event(
        type=EventType.VEHICLE_CHARGE_UPDATED,
        charger_id=CHARGER,
        vehicle_id=vehicle,
        state_of_charge=50,
        charged_energy=number,
        timestamp=timestamp,
    )


def updates(count: int, fleet: list[str]) -> Iterator[Event]:
    """Numbered events of the vehicles in turn."""
    return (update(number, fleet[number % len(fleet)]) for number in range(count))


def numbers(events: Iterable[Event]) -> dict[str, list[int]]:
    """The numbers of the events of each vehicle, in their order."""
    found: dict[str, list[int]] = defaultdict(list)
    for event in events:
        assert event.charged_energy is not None
        found[event.vehicle_id].append(int(event.charged_energy))
    return dict(found)


def check_once_and_in_order(client: Client, count: int, fleet: list[str]) -> None:
    """Each event of `updates` is stored once. The events of a vehicle are in their order."""
    expected = numbers(updates(count, fleet))
    events = list(client.events.list(page_size=1000))
    assert numbers(events) == expected
    for vehicle in fleet:
        stamps = [event.at_ms for event in events if event.vehicle_id == vehicle]
        assert stamps == sorted(set(stamps))
