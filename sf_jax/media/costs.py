"""What an image file costs beyond its pixels, counted before anything is decoded.

Each scan of a progressive JPEG passes over the whole image, and one that changes nothing is a few
bytes long; so may be each of its segments, which are read one after another, as the pages of a
TIFF are by whoever asks for their number. The counts end at a bound, so that counting costs little.
"""

import os
import re
import struct
from typing import IO

MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # but those that entropy-coded data may hold
BLOCK = 4096  # bytes read at a time
START_OF_IMAGE, END_OF_IMAGE, START_OF_SCAN = 0xD8, 0xD9, 0xDA


def jpeg_parts(file: IO[bytes], most_scans: int, most_segments: int) -> tuple[int, int]:
    """Scans and segments of a JPEG file, counted until one of them is above its bound; 0 and 0
    where it is none.

    Source: ITU-T T.81, annex B.
    """
    file.seek(0)
    if file.read(3) != b"\xff\xd8\xff":
        return 0, 0
    file.seek(2)
    scans = segments = 0
    while scans <= most_scans and segments <= most_segments:
        marker = _next_marker(file)
        if marker in (None, END_OF_IMAGE):
            break
        segments += 1
        if marker == START_OF_IMAGE:  # has no length
            continue
        scans += marker == START_OF_SCAN
        length = int.from_bytes(file.read(2), "big")
        file.seek(max(length - 2, 0), os.SEEK_CUR)
    return scans, segments


def _next_marker(file: IO[bytes]) -> int | None:
    """The code of the next marker, the file being left after it; None at the end of the file."""
    while block := file.read(BLOCK):
        found = MARKER.search(block)
        if found:
            file.seek(found.end() - len(block), os.SEEK_CUR)
            return block[found.end() - 1]
        if block.endswith(b"\xff") and len(block) > 1:  # a marker may continue in the next block
            file.seek(-1, os.SEEK_CUR)
    return None


def tiff_pages(file: IO[bytes], most: int) -> int:
    """Pages of a TIFF or BigTIFF file, counted up to `most`; their content is not read.

    Source: TIFF 6.0, section 2; BigTIFF widens counts and offsets to 64 bits.
    """
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    entries, entry, offset = ("Q", 20, "Q") if big else ("H", 12, "I")
    start = head[8:] if big else head[4:8]
    pages = 0
    try:
        (position,) = struct.unpack(order + offset, start)
        while position and pages < most:
            file.seek(position)
            (count,) = struct.unpack(order + entries, file.read(struct.calcsize(entries)))
            pages += 1
            file.seek(count * entry, os.SEEK_CUR)
            (position,) = struct.unpack(order + offset, file.read(struct.calcsize(offset)))
    except (struct.error, OverflowError, OSError):
        pass  # the chain of pages ends in nothing
    return pages
