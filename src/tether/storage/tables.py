"""All tables of the schema. Deleting a partner and copying a database follow this list."""

from typing import NamedTuple


class Table(NamedTuple):
    """What happens to the rows of a table."""

    key: tuple[str, ...] = ()
    """The primary key, by which they are copied. Without one a copy gets no rows, or makes them."""

    goes_with_partner: bool = False
    """Whether the deletion of a partner deletes those with its number in `partner`. The other
    tables have statements of their own for that, or none of its data.
    """

    engine: str = ""
    """The only engine that has the table."""


TABLES = {
    "partners": Table(("id",)),
    "keys": Table(("digest",)),
    "key_requests": Table(("digest",)),
    "key_hours": Table(("partner", "hour", "key"), goes_with_partner=True),
    "console_sessions": Table(),
    "console_links": Table(),
    "webhooks": Table(("partner", "id"), goes_with_partner=True),
    "webhook_parked": Table(("partner", "webhook", "id"), goes_with_partner=True),
    "webhook_attempts": Table(goes_with_partner=True),
    "audit_entries": Table(("partner", "at_ms", "id"), goes_with_partner=True),
    "erasures": Table(("partner", "kind", "code"), goes_with_partner=True),
    "retention": Table(("partner",), goes_with_partner=True),
    "refused_requests": Table(goes_with_partner=True),
    "chargers": Table(("partner", "id"), goes_with_partner=True),
    "vehicles": Table(("partner", "id"), goes_with_partner=True),
    "events": Table(("partner", "seq")),
    "withdrawals": Table(("partner", "seq"), goes_with_partner=True),
    "derivations": Table(("partner",), goes_with_partner=True),
    "snapshots": Table(("partner", "vehicle_id"), goes_with_partner=True),
    "session_versions": Table(("partner", "id"), goes_with_partner=True),
    "sessions": Table(
        ("partner", "vehicle_id", "start_ms", "start_rank", "charger_id"), goes_with_partner=True
    ),
    "epoch": Table(),
    "event_heads": Table(goes_with_partner=True, engine="postgres"),
    "listings": Table(goes_with_partner=True, engine="sqlite"),
    "list_of_charger": Table(engine="sqlite"),
    "list_of_vehicle": Table(engine="sqlite"),
    "list_by_time": Table(engine="sqlite"),
}
VIEWS = {"charger_events", "vehicle_events", "vehicle_history"}
