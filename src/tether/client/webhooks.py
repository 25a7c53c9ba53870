"""The members of webhooks, and their JSON."""

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from tether.client.errors import invalid
from tether.client.exchange import RetryPolicy
from tether.client.models import Number
from tether.client.selections import api_name
from tether.domain.models import to_json

# If the answer to a create is lost, the webhook may exist. Another try would make a second one, and
# the secret of the first would stay unknown.
ONCE = RetryPolicy(0)


class WebhookMembers(TypedDict, total=False):
    """The members of a webhook: the types of messages, the charger or vehicle that they are about,
    the start in the log (now, start, or a cursor of events or of the stream), whether it is on,
    the most messages in a request, and the most requests per second.
    """

    types: Iterable[str] | None
    charger_id: str | None
    vehicle_id: str | None
    from_: str
    enabled: bool | None
    max_batch: int | None
    rate_per_second: Number | None
    description: str | None


class WebhookChanges(WebhookMembers, total=False):
    """The members of a webhook that can be changed; None sets the default."""

    url: str


_KNOWN = {"signature", *WebhookChanges.__annotations__}


def webhook_body(members: Mapping[str, Any]) -> bytes:
    """The members as JSON. Raises TypeError for an unknown member."""
    if unknown := members.keys() - _KNOWN:
        raise TypeError(f"A webhook has no {', '.join(sorted(unknown))}.")
    body = {api_name(name): value for name, value in members.items()}
    types = body.get("types")
    if isinstance(types, str):
        raise invalid("types", "It must be several types, such as ['session.ended'].")
    if types is not None:
        body["types"] = list(types)
    return to_json(body)
