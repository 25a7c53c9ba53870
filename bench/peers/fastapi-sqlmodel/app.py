"""FastAPI, SQLModel and asyncpg: uvicorn app:app, with DATABASE (a URL) and POOL."""

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import getrandbits
from time import perf_counter
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from prometheus_client import Histogram, make_asgi_app
from pydantic import AwareDatetime, ConfigDict, Strict, StringConstraints, model_validator
from sqlalchemy import BigInteger, DateTime, Identity, text
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
    seq: int | None = Field(
        default=None, primary_key=True, sa_type=BigInteger, sa_column_args=[Identity(always=True)]
    )
    id: UUID | None = Field(default=None, sa_column_kwargs={"server_default": text("uuidv7()")})
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


# Adds the event if there is nothing of its identity yet.
ADD_EVENT = (
    insert(Event)
    .on_conflict_do_nothing(
        index_elements=["partner", "timestamp", "vehicle_id", "type", "charger_id"]
    )
    .returning(col(Event.id))
)

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


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
                "level": record.levelname.lower(),
                "event": record.getMessage(),
                **getattr(record, "fields", {}),
            }
        )


def configure_log() -> logging.Logger:
    # What no line shows need not be gathered: the HOWTO of logging calls this optimization.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler()  # standard error
    handler.setFormatter(JsonFormatter())
    log = logging.getLogger("peer")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return log


log = configure_log()


class RequestLog:
    """Gives each request an id and writes one line about it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        request_id = f"{getrandbits(64):016x}"
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            route = scope.get("route")
            fields = {
                "request_id": request_id,
                "method": scope["method"],
                "route": route.path if route else "other",
                "status": status,
                "ms": round((perf_counter() - started) * 1000, 3),
            }
            log.info("request", extra={"fields": fields})
            labels = fields["method"], fields["route"], status
            request_seconds.labels(*labels).observe(perf_counter() - started)


request_seconds = Histogram(
    "request_seconds", "Time to the answer, by route and status.", ["method", "route", "status"]
)
limiter = FixedWindowRateLimiter(MemoryStorage())
MOST = RateLimitItemPerSecond(1_000_000)
app = FastAPI(lifespan=lifespan)
app.add_middleware(RequestLog)


@app.exception_handler(RequestValidationError)
async def bad_request(_: Request, error: RequestValidationError) -> JSONResponse:
    return JSONResponse({"message": str(error.errors()[0]["msg"])}, 400)


async def authenticate(x_api_key: Annotated[str, Header()] = "") -> str:
    partner = partners.get(hashlib.sha256(x_api_key.encode()).hexdigest())
    if partner is None:
        raise HTTPException(403, "Forbidden")
    if not await limiter.hit(MOST, x_api_key):
        raise HTTPException(429, "Too Many Requests")
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
    identity = {
        "partner": partner,
        "timestamp": body.timestamp or datetime.now(UTC),
        "vehicle_id": body.vehicleId,
        "type": body.type,
        "charger_id": body.chargerId,
    }
    values = {**identity, "state_of_charge": body.stateOfCharge}
    added = (await session.exec(ADD_EVENT, params=values)).scalar_one_or_none()
    await session.commit()
    if added is not None:
        return Created(id=added)
    recorded = (await session.exec(select(Event).filter_by(**identity))).one()
    if recorded.state_of_charge != body.stateOfCharge:
        raise HTTPException(409, "This event is recorded with another stateOfCharge.")
    return Created(id=recorded.id)


@app.get("/chargers/{charger_id}")
async def get_charger(charger_id: str, partner: Partner, session: Session) -> dict[str, Any]:
    charger = await session.get(Charger, (partner, charger_id))
    if charger is None:
        raise HTTPException(404, "Not Found")
    return charger.body


app.mount("/metrics", make_asgi_app())
