"""Structured fields (RFC 9651): what `Tether-Error` and `Tether-Warning` say to programs."""

import re

from tether.domain.keys import without_keys


def structured(token: str, parameter: str | None) -> str:
    """A code and the parameter that it is about, as an item of a structured field (RFC 9651)."""
    if parameter is None:
        return token
    safe = re.sub(r"[^ -~]", "?", without_keys(parameter))
    escaped = safe.replace("\\", "\\\\").replace('"', '\\"')
    return f'{token}; parameter="{escaped}"'
