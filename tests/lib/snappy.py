"""Snappy, written: a small encoder of a test's own (format_description.txt, framing_format.txt)."""

import struct

STREAM = b"\xff\x06\0\0sNaPpY"


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def literal(data):
    """In the shortest form that its length has."""
    size = len(data) - 1
    if size < 60:
        return bytes([size << 2]) + data
    more = (size.bit_length() + 7) // 8
    return bytes([59 + more << 2]) + size.to_bytes(more, "little") + data


def copy(offset, size):
    """Of up to 64 bytes, in the shortest form that its offset has."""
    if 4 <= size <= 11 and offset < 2048:
        return bytes([offset >> 8 << 5 | size - 4 << 2 | 1, offset & 0xFF])
    if offset < 65536:
        return bytes([size - 1 << 2 | 2]) + struct.pack("<H", offset)
    return bytes([size - 1 << 2 | 3]) + struct.pack("<I", offset)


def block(data):
    """Greedy: what begins with four bytes that were there before is a copy."""
    out, seen, begun, at = bytearray(varint(len(data))), {}, 0, 0
    while at < len(data):
        before = seen.get(data[at:at + 4])
        seen[data[at:at + 4]] = at
        size = 0
        if before is not None and at + 4 <= len(data):
            while size < 64 and at + size < len(data) and data[before + size] == data[at + size]:
                size += 1
        if size < 4:
            at += 1
            continue
        if begun < at:
            out += literal(data[begun:at])
        out += copy(at - before, size)
        at += size
        begun = at
    return bytes(out + (literal(data[begun:]) if begun < len(data) else b""))


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def chunk(kind, data, payload):
    """`payload` is what stands for `data`, in a compressed (0) or plain (1) chunk."""
    value = crc32c(data)
    value = ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return (bytes([kind]) + struct.pack("<I", 4 + len(payload))[:3] + struct.pack("<I", value) +
            payload)


def stream(data, size=65536):
    """A compressed and a plain chunk in turn, with padding between them."""
    out = STREAM
    for index, at in enumerate(range(0, len(data), size)):
        piece = data[at:at + size]
        out += chunk(index % 2, piece, piece if index % 2 else block(piece)) + b"\xfe\x03\0\0pad"
    return out
