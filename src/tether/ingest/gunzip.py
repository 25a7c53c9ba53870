"""Uncompresses a body in steps, within a limit, so that others are served meanwhile."""

import zlib

from tether.domain.errors import Malformed, TooLarge
from tether.storage.turns import Steps

PIECE_BYTES = 64 * 1024
ZIPPED_BYTES = 16 * 1024
MAX_MEMBERS = 1_000  # each takes some microseconds, however short it is
GZIP_BEGINS = b"\x1f"


def gunzip(body: bytes, limit: int) -> Steps[bytes]:
    """The body uncompressed: of one gzip member or of several (RFC 1952, 2.2).

    Raises TooLarge, and Malformed if it is not whole.
    """
    plain, rest, read, members = bytearray(), b"", 0, 0
    while rest or read < len(body) or not members:
        members += 1
        if members > 1 and (rest or body[read : read + 1])[:1] != GZIP_BEGINS:
            raise Malformed("The body is not valid gzip: something follows its end.")
        if members > MAX_MEMBERS:
            raise Malformed(f"The body is not valid gzip: it has more than {MAX_MEMBERS} members.")
        unzip = zlib.decompressobj(wbits=31)
        while not unzip.eof:
            # In pieces on both sides, as what is left over of a piece is copied.
            piece = rest or body[read : (read := read + ZIPPED_BYTES)]
            try:
                more = unzip.decompress(piece, PIECE_BYTES)
            except zlib.error as error:
                raise Malformed("The body is not valid gzip.") from error
            if not more and not piece:
                raise Malformed("The body is not valid gzip: it ends too early.")
            rest = unzip.unused_data if unzip.eof else unzip.unconsumed_tail
            plain += more
            if len(plain) > limit:
                raise TooLarge(limit)
            yield
    return bytes(plain)
