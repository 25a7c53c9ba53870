"""FastAPI, SQLModel and asyncpg: uvicorn app:app, with DATABASE (a URL) and POOL."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, ConfigDict, Strict, StringConstraints, model_validator
from sqlalchemy import DateTime, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

KEYS_RELOAD_S = 2.0  # a revoked key stops working within this time
YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC)

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~*+@:-]{1,128}$")]


class ApiKey(SQLModel, table=True):
    __tablename__ = "api_keys"
    hash: str = Field(primary_key=True)
    partner: str


class Charger(SQLModel, table=True):
    __tablename__ = "chargers"
    partner: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    body: dict[str, Any] = Field(sa_type=JSONB)


class Vehicle(SQLModel, table=True):
    __tablename__ = "vehicles"
    partner: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    body: dict[str, Any] = Field(sa_type=JSONB)


class Event(SQLModel, table=True):
    __tablename__ = "events"
    partner: str = Field(primary_key=True)
    id: UUID | None = Field(
        default=None, primary_key=True, sa_column_kwargs={"server_default": text("uuidv7()")}
    )
    type: str
    charger_id: str
    vehicle_id: str
    state_of_charge: float | None = None
    timestamp: datetime = Field(sa_type=DateTime(timezone=True))


class EventCreate(SQLModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal[
        "VEHICLE_CONNECTED",
        "VEHICLE_DISCONNECTED",
        "VEHICLE_CHARGE_STARTED",
        "VEHICLE_CHARGE_STOPPED",
        "VEHICLE_CHARGE_UPDATED",
    ]
    chargerId: Id
    vehicleId: Id
    stateOfCharge: Annotated[float, Strict()] | None = Field(default=None, ge=0, le=100)
    timestamp: AwareDatetime | None = None

    @model_validator(mode="after")
    def check(self) -> "EventCreate":
        if self.type == "VEHICLE_CHARGE_UPDATED" and self.stateOfCharge is None:
            raise ValueError("stateOfCharge is required")
        latest = datetime.now(UTC) + timedelta(days=1)
        if self.timestamp is not None and not YEAR_2000 <= self.timestamp <= latest:
            raise ValueError("timestamp is out of range")
        return self


class Created(SQLModel):
    id: UUID


engine = create_async_engine(
    os.environ["DATABASE"].replace("postgresql://", "postgresql+asyncpg://", 1),
    pool_size=int(os.environ.get("POOL", "20")),
    max_overflow=0,
)
partners: dict[str, str] = {}  # SHA-256 of a key in hexadecimal: partner


async def load_keys() -> None:
    async with AsyncSession(engine) as session:
        keys = await session.exec(select(ApiKey))
        fresh = {key.hash: key.partner for key in keys}
    partners.clear()
    partners.update(fresh)


async def follow_keys() -> None:
    while True:
        await asyncio.sleep(KEYS_RELOAD_S)
        await load_keys()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    await load_keys()
    task = asyncio.create_task(follow_keys())
    yield
    task.cancel()
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.exception_handler(RequestValidationError)
async def bad_request(_: Request, error: RequestValidationError) -> JSONResponse:
    return JSONResponse({"message": str(error.errors()[0]["msg"])}, 400)


async def authenticate(x_api_key: Annotated[str, Header()] = "") -> str:
    partner = partners.get(hashlib.sha256(x_api_key.encode()).hexdigest())
    if partner is None:
        raise HTTPException(403, "Forbidden")
    return partner


async def open_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session


Partner = Annotated[str, Depends(authenticate)]
Session = Annotated[AsyncSession, Depends(open_session)]


@app.post("/events", status_code=201)
async def create_event(body: EventCreate, partner: Partner, session: Session) -> Created:
    charger = await session.get(Charger, (partner, body.chargerId))
    vehicle = await session.get(Vehicle, (partner, body.vehicleId))
    if charger is None or vehicle is None:
        raise HTTPException(409, "No such charger or vehicle.")
    event = Event(
        partner=partner,
        type=body.type,
        charger_id=body.chargerId,
        vehicle_id=body.vehicleId,
        state_of_charge=body.stateOfCharge,
        timestamp=body.timestamp or datetime.now(UTC),
    )
    session.add(event)
    await session.commit()
    return Created(id=event.id)


@app.get("/chargers/{charger_id}")
async def get_charger(charger_id: str, partner: Partner, session: Session) -> dict[str, Any]:
    charger = await session.get(Charger, (partner, charger_id))
    if charger is None:
        raise HTTPException(404, "Not Found")
    return charger.body
