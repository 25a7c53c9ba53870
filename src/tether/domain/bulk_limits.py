"""How much one request may report at once: of events, of bytes, and of bytes an event."""

MAX_EVENTS = 10_000
MAX_BYTES = 8 * 1024 * 1024
MAX_ITEM_BYTES = 64 * 1024
