"""Segments of a spool, as routing/spool/format.h has them: enough to know what lies where."""

import struct

SEGMENT_HEAD, ENTRY_HEAD = 24, 32


def entries(blob):
    """(offset, offset of its body, end, items) of each entry of a whole segment."""
    at = SEGMENT_HEAD
    while at < len(blob):
        body_bytes, items = struct.unpack_from("<II", blob, at + 12)
        tenant, key = blob[at + 30], blob[at + 31]
        body = at + ENTRY_HEAD + tenant + key
        yield at, body, body + body_bytes, items
        at = body + body_bytes
