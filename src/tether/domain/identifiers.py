"""Identifiers: those that partners choose for chargers and vehicles, and those of events."""

import re
from urllib.parse import unquote_to_bytes
from uuid import UUID

ENTITY_ID_RULE = (
    "It must be 1 to 128 characters of A-Z a-z 0-9 . _ ~ * + @ : - and neither . nor .. alone."
)
_ENTITY_ID = re.compile(r"[A-Za-z0-9._~*+@:-]{1,128}")
_LONGEST_IN_PATH = 3 * 128  # each character as %xx


def is_entity_id(text: str) -> bool:
    """Whether partners may name a charger or a vehicle so."""
    return _ENTITY_ID.fullmatch(text) is not None and text not in (".", "..")


def entity_id_from_path(segment: str) -> str | None:
    """The id in one segment of the raw, still percent-encoded path; None if it is not one.

    Decoded once and only once: `%2541` is not `A`, and `a%2Fb` never becomes two segments.
    """
    if "%" in segment and len(segment) <= _LONGEST_IN_PATH:
        segment = unquote_to_bytes(segment).decode("latin-1")
    return segment if is_entity_id(segment) else None


def event_id_from_path(segment: str) -> str | None:
    """The id of an event in the form in which we hand it out, or None if it cannot be one."""
    if len(segment) != 36:
        return None
    try:
        return str(UUID(segment))
    except ValueError:
        return None
