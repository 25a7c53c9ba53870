"""Lists as tables of pandas, Polars and Arrow, with the libraries themselves."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pandas
import polars
import pyarrow
import pytest

from tests.client.test_sessions import event, session_events
from tests.conftest import Server
from tether.client import (
    Capacity,
    Charger,
    Client,
    EnergyStep,
    Event,
    Session,
    SessionSummary,
    Vehicle,
    to_arrow,
    to_pandas,
    to_polars,
)

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
DAY = {"from_": "2026-01-05T12:00:00Z", "to": "2026-01-05T13:00:00Z"}


@pytest.fixture(scope="module")
def fleet(sqlite_server: Server) -> Iterator[Client]:
    """Two sessions of half an hour with 5 kWh each, and an active one."""
    with Client(sqlite_server.url, sqlite_server.key()) as client:
        client.chargers.put(Charger(id="C1", charge_powers=[11, "22.5"]))
        client.vehicles.bulk(
            Vehicle(id=f"V{n}", charge_capacity=74.8, charge_powers=[11]) for n in (1, 2)
        )
        client.events.bulk(
            [
                *session_events(0),
                *session_events(60),
                event("CONNECTED", 5, "V2", state_of_charge=0.1),
            ]
        )
        yield client


def lists(client: Client) -> dict[type, list[Any]]:
    """Everything that can be a table."""
    return {
        Charger: list(client.chargers.list()),
        Vehicle: list(client.vehicles.list()),
        Event: list(client.events.list()),
        Session: list(client.sessions.list()),
        SessionSummary: list(client.sessions.summary(bucket="hour", time_zone="Europe/Berlin")),
        EnergyStep: list(client.energy(step=900, **DAY)),  # type: ignore[arg-type]
        Capacity: client.capacity.series(step=900, **DAY),  # type: ignore[arg-type]
    }


def test_every_list_becomes_a_table_of_each_library(fleet: Client) -> None:
    for kind, things in lists(fleet).items():
        assert things, kind
        arrow = to_arrow(things)
        exact = [to_polars(things, exact=True), to_pandas(things, exact=True)]
        for frame in (to_polars(iter(things)), to_pandas(iter(things)), *exact):
            assert list(frame.columns) == arrow.column_names
            assert len(frame) == arrow.num_rows == len(things)
        assert exact[0].to_dicts() == arrow.to_pylist()
        makers: list[Any] = [to_arrow, to_polars, to_pandas]
        for make in makers:  # an empty list gives the same columns and types
            empty, full = make([], kind), make(things)
            assert len(empty) == 0
            if make is to_pandas:
                assert [str(kind) for kind in empty.dtypes] == [str(kind) for kind in full.dtypes]
            else:
                assert empty.schema == full.schema


def test_pandas_has_floats_instants_and_counts(fleet: Client) -> None:
    frame = to_pandas(fleet.sessions.list())
    assert frame["connectedAt"].dt.tz is not None
    assert frame["connectedAt"][0] == pandas.Timestamp("2026-01-05T12:00:00Z")
    assert frame["chargedEnergy"].dtype == "float64"
    assert frame["chargedEnergy"].sum() == 10.0
    assert frame["disconnectedAt"].isna().tolist() == [False, True, False]
    assert frame["version"].dtype == "Int64"
    assert frame["periods"][0][0]["chargedEnergy"] == 5.0
    hours = frame.set_index("connectedAt")["chargedEnergy"].resample("1h").sum()
    assert hours.tolist() == [5.0, 5.0]
    exact = to_pandas(fleet.sessions.list(), exact=True)
    assert exact["stateOfChargeStart"][1] == Decimal("0.1")
    assert to_pandas(fleet.capacity.series(step=900, **DAY))["unknown.chargePower"].sum() == 0  # type: ignore[arg-type]


def test_polars_and_arrow_have_types(fleet: Client) -> None:
    frame = to_polars(fleet.sessions.list())
    assert frame.schema["connectedAt"] == polars.Datetime("ms", "UTC")
    assert frame["chargedEnergy"].sum() == 10.0
    assert frame["connectedAt"][0] == NOON
    exact = to_polars(fleet.sessions.list(), exact=True)
    assert exact["chargedEnergy"].dtype == polars.Decimal(38, 18)
    table = to_arrow(fleet.events.list())
    assert table.schema.field("stateOfCharge").type == pyarrow.decimal128(38, 18)
    assert table.schema.field("timestamp").type == pyarrow.timestamp("ms", tz="UTC")
    assert polars.from_arrow(table).shape == (9, len(table.column_names))


def test_errors_say_why_a_list_cannot_be_a_table(fleet: Client) -> None:
    with pytest.raises(ValueError, match="such as kind=Session"):
        to_pandas([])
    with pytest.raises(TypeError, match="A Charger is expected, not Vehicle"):
        to_polars([*fleet.chargers.list(), *fleet.vehicles.list()])
    with pytest.raises(TypeError, match="Objects of this SDK are expected"):
        to_pandas([1, 2])  # type: ignore[type-var]
    fine = Vehicle(id="V", charge_capacity=Decimal("0.1234567890123456789"), charge_powers=())
    for exactly in (lambda: to_arrow([fine]), lambda: to_polars([fine], exact=True)):
        with pytest.raises(ValueError, match="more than 18 decimal places"):
            exactly()
    assert to_pandas([fine], exact=True)["chargeCapacity"][0] == fine.charge_capacity


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_missing_library_is_named(library: str) -> None:
    call = f"to_{library.removeprefix('py')}"
    program = (
        f"import sys; sys.modules['{library}'] = None\n"
        f"import tether.client as c\nc.{call}([], c.Session)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: {call} needs {library}: pip install {library}"
    )
