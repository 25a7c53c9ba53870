"""How much one request may carry at once: of items, of bytes, and of bytes an item."""

MAX_ITEMS = 10_000
MAX_BYTES = 8 * 1024 * 1024
MAX_ITEM_BYTES = 64 * 1024
