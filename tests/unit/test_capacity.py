"""The rules of docs/capacity.md against simple ones, without a server."""

import gc
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from time import process_time
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.domain.capacity import Box, Figures, Pair, Powers, Totals, common_power, pair_of
from tether.domain.models import Charger, Vehicle
from tether.domain.timeline import Condition, Timeline

D = Decimal
TENTHS = range(1, 61)  # every power that the examples can have, in tenths of a kW

numbers = st.sampled_from(TENTHS).map(lambda tenths: D(tenths) / 10)
discrete = st.lists(numbers, min_size=1, max_size=4).map(lambda powers: Powers(tuple(powers)))
ranges = st.tuples(numbers, numbers).map(lambda ends: Powers((), min(ends), max(ends)))
powers = st.one_of(discrete, ranges)


def supports(one: Powers, power: Decimal) -> bool:
    if one.discrete:
        return power in one.discrete
    return one.lowest is not None and one.highest is not None and one.lowest <= power <= one.highest


@given(powers, powers)
def test_the_common_power_is_the_highest_that_both_support(one: Powers, other: Powers) -> None:
    both = [D(t) / 10 for t in TENTHS if supports(one, D(t) / 10) and supports(other, D(t) / 10)]
    assert common_power(one, other) == max(both, default=None)
    assert common_power(one, other) == common_power(other, one)


@given(powers)
def test_a_side_without_powers_gives_nothing(one: Powers) -> None:
    assert common_power(one, Powers()) == common_power(Powers(), one) == 0


def test_common_powers_by_hand() -> None:
    a, b, c = Powers((D(11), D(22))), Powers((D("11.0"), D(7))), Powers((D("3.7"),))
    wide, high = Powers((), D("1.4"), D(15)), Powers((), D(16), D(50))
    assert [common_power(a, b), common_power(a, c)] == [11, None]
    assert [common_power(a, wide), common_power(high, a), common_power(c, high)] == [11, 22, None]
    assert [common_power(wide, Powers((), D(15), D(20))), common_power(wide, high)] == [15, None]


# Figures ------------------------------------------------------------------------------------------


def pair(
    capacity: int = 50,
    charge: int | None = 11,
    discharge: int | None = 10,
    charger: tuple[int, int] = (22, 10),
) -> Pair:
    return Pair(
        D(capacity),
        None if charge is None else D(charge),
        None if discharge is None else D(discharge),
        *map(D, charger),
    )


def figures(*there: tuple[Pair, Condition]) -> Figures:
    totals = Totals(range(1))
    list(totals.adding([(pair, [(0, condition)]) for pair, condition in there]))
    return summed(totals)[0]


def summed(totals: Totals) -> list[Figures]:
    steps = totals.summing()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: list[Figures] = end.value
            return found


def charging(power: float | None, soc: float | None = 50) -> Condition:
    return Condition(True, None if power is None else D(str(power)), _soc(soc))


def idle(soc: float | None = 50) -> Condition:
    return Condition(False, None, _soc(soc))


def _soc(soc: float | None) -> Decimal | None:
    return None if soc is None else D(str(soc))


def flows(found: Figures) -> list[float]:
    """Power taken, available, given and available."""
    return [
        float(flow)
        for flow in (
            found.charge_power,
            found.charge_available,
            found.discharge_power,
            found.discharge_available,
        )
    ]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (idle(), (0, 11, 0, 10)),
        (charging(7.4), (7.4, 3.6, 0, 10)),
        (charging(0), (0, 11, 0, 10)),
        (charging(12), (12, 0, 0, 10)),  # more than it should: nothing can be added
        (charging(-4), (0, 11, 4, 6)),  # from -4 to 11 it is 15: 4 it gives, 11 it could take
        (charging(-12), (0, 11, 12, 0)),
        (idle(100), (0, 0, 0, 10)),
        (idle(0), (0, 11, 0, 0)),
        (idle(None), (0, 0, 0, 0)),
        (charging(5, None), (5, 0, 0, 0)),
        (charging(None), (0, 0, 0, 0)),
    ],
)
def test_one_vehicle(condition: Condition, expected: tuple[float, ...]) -> None:
    assert flows(figures((pair(), condition))) == list(expected)


def test_a_charger_is_never_promised_beyond_what_it_can_deliver() -> None:
    both = figures((pair(), charging(9)), (pair(), idle()), (pair(), idle()))
    assert flows(both) == [9, 13, 0, 10]  # 2 + 11 + 11 were 24, but 22 - 9 is what is left
    over = figures((pair(), charging(20)), (pair(), charging(9)))
    assert over.charge_available == 0
    mixed = figures((pair(), charging(-4)), (pair(), idle()))
    assert flows(mixed) == [0, 22, 4, 6]


def test_what_a_vehicle_of_unknown_power_may_take_is_not_promised_to_another() -> None:
    found = figures((pair(), charging(None)), (pair(), idle()))
    assert (flows(found), found.no_power) == ([0, 11, 0, 0], 1)
    found = figures((pair(charge=None), charging(None)), (pair(), idle()))
    assert (flows(found), found.no_common_charge) == ([0, 0, 0, 0], 1)


def test_unknowns_are_counted_by_kind_and_never_guessed() -> None:
    found = figures(
        (pair(), idle(None)),
        (pair(), charging(None, None)),
        (pair(charge=None), idle(20)),
        (pair(discharge=None), idle(100)),
    )
    unknown = found.no_soc, found.no_power, found.no_common_charge, found.no_common_discharge
    assert unknown == (2, 1, 1, 1)
    assert (found.energy_stored, found.energy_room) == (D(60), D(40))
    assert (found.chargers, found.vehicles, found.charging) == (1, 4, 1)


def test_energies_are_exact() -> None:
    one = Vehicle(id="V", charge_capacity=D("74.800000000001"), charge_powers=(D(11),))
    two = Charger(id="C", charge_powers=(D(11),))
    found = figures((pair_of(two, one), idle(33.3333333333333)))
    capacity = Fraction("74.800000000001")
    assert Fraction(found.energy_stored) == capacity * Fraction("33.3333333333333") / 100
    assert Fraction(found.energy_stored) + Fraction(found.energy_room) == capacity


# Over time ----------------------------------------------------------------------------------------


class Seen(NamedTuple):
    pair: Pair
    course: Timeline


@st.composite
def courses(draw: st.DrawFn, moments: int) -> Seen:
    places = sorted(draw(st.sets(st.integers(0, moments - 1), min_size=1, max_size=5)))
    powers = st.sampled_from([None, -7, 0, 3, 11])
    course: Timeline = [
        (place, charging(draw(powers), draw(st.sampled_from([None, 0, 50, 100]))))
        for place in places
    ]
    if len(course) > 1 and draw(st.booleans()):
        course[-1] = (course[-1][0], None)
    kind = st.sampled_from([pair(), pair(80, 22, 0), pair(40, None, None)])
    return Seen(draw(kind), course)


def state_at(course: Timeline, place: int) -> Condition | None:
    known = [condition for start, condition in course if start <= place]
    return known[-1] if known else None


@given(st.lists(st.lists(courses(12), max_size=3), max_size=4))
def test_a_series_is_what_each_moment_is_by_itself(chargers: Sequence[Sequence[Seen]]) -> None:
    series = Totals(range(12))
    for there in chargers:
        list(series.adding(there))
    for place, found in enumerate(summed(series)):
        alone = Totals(range(1))
        for there in chargers:
            list(alone.adding([(seen.pair, [(0, state)]) for seen, state in at(there, place)]))
        assert found == summed(alone)[0]


def test_many_vehicles_at_one_charger_take_no_longer_than_at_many() -> None:
    """Nothing else is served meanwhile, and a depot may be registered as one charger."""
    fleet: list[tuple[Pair, Timeline]] = [(pair(), [(n % 1000, charging(7))]) for n in range(4000)]
    seconds = []
    gc.disable()  # it may search for much that other tests left
    try:
        for chargers in ([[one] for one in fleet], [fleet]):
            series, begun = Totals(range(1000)), process_time()
            for there in chargers:
                list(series.adding(there))
            seconds.append(process_time() - begun)
    finally:
        gc.enable()
    assert seconds[1] < 10 * seconds[0]


def at(there: Sequence[Seen], place: int) -> Iterator[tuple[Seen, Condition]]:
    for seen in there:
        state = state_at(seen.course, place)
        if state is not None:
            yield seen, state


# Boxes --------------------------------------------------------------------------------------------


def test_a_box_has_its_edges_and_may_cross_the_antimeridian() -> None:
    def charger(longitude: str, latitude: str = "0") -> Charger:
        return Charger(id="C", charge_powers=(D(1),), latitude=D(latitude), longitude=D(longitude))

    box = Box(D(-10), D(-5), D("10.5"), D(5))
    assert all(box.has(charger(*at)) for at in [("-10", "5"), ("10.50", "-5"), ("0",)])
    assert not any(box.has(charger(*at)) for at in [("-10.1",), ("11",), ("0", "5.1")])
    fiji = Box(D(177), D(-20), D(-178), D(20))
    assert [fiji.has(charger(at)) for at in ("177", "180", "-180", "-178", "0", "-177")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip
    assert not box.has(Charger(id="C", charge_powers=(D(1),)))
