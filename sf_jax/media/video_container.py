"""What a video file's container holds: streams, codec, timecode, and how long it should be."""

import errno
import os
import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import BinaryIO

import av
from av.container import InputContainer
from av.stream import DataStream, Disposition
from av.video.stream import VideoStream

_BOXES = b"""ftyp styp moov moof mdat mfra meta free skip wide pnot uuid sidx ssix prft emsg
udta""".split()  # at the top level of ISO media files

HEADER = 1_000_000  # bytes, in which a Matroska file describes its tracks
SEARCHED_PACKETS = 200  # for the sample of a timecode track, which is among the first

_LISTS = (
    (rb"\s*#EXTM3U", "an M3U playlist"),
    (rb"\s*ffconcat\b", "an ffconcat script"),
    (rb"\s*v=0\s", "a session description (SDP)"),
    (rb"\s*(<\?xml[^>]*>\s*)?<MPD\b", "a DASH manifest"),
    (rb"(?i)\s*(<\?xml[^>]*>\s*)?<(asx|smil|playlist)\b", "a playlist"),
    (rb"(?i)\s*\[(reference|playlist)\]", "a playlist"),
    (rb"(?i)\s*(https?|rtsp|rtmp|mms|concat|file):", "a text that names a file"),
)


class Nameless:
    """A file without its name, which a container reader might take for a pattern or an address."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new position; a negative number for one that no file has, as damage may ask for."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -errno.EINVAL

    def tell(self) -> int:
        return self._file.tell()


def rational(value: Fraction | None) -> Fraction | None:
    """A rate, ratio or time base of PyAV, whose type differs between versions; None if not set."""
    return Fraction(value.numerator, value.denominator) if value else None


def opened(file: BinaryIO, options: dict[str, str]) -> InputContainer:
    """The container that a file holds; tags that are no UTF-8 are no reason to refuse it."""
    # From version 19 on, PyAV reads such tags by itself and takes no argument for it.
    if int(av.__version__.split(".")[0]) < 19:
        return av.open(Nameless(file), "r", options=options, metadata_errors="replace")
    return av.open(Nameless(file), "r", options=options)


def names_other_files(start: bytes) -> str | None:
    """What kind of list of other files begins with these bytes; None where it is none."""
    start = start.removeprefix(b"\xef\xbb\xbf")
    return next((name for pattern, name in _LISTS if re.match(pattern, start)), None)


def video_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams, without cover pictures."""
    picture = Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & picture]


def main_stream(container: InputContainer) -> VideoStream | None:
    """The video stream that a player would show; None where there is none."""
    streams = video_streams(container)
    best = container.streams.best("video")
    return best if best in streams else next(iter(streams), None)  # type: ignore[return-value]


def undecodable(container: InputContainer, stream: VideoStream, file: BinaryIO) -> str:
    """The name of a codec for which there is no decoder, of an opened file."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        dumped = container.dumps_format()  # type: ignore[attr-defined]
    finally:
        av.logging.set_level(level)
    found = re.search(rf"Stream #0:{stream.index}\b.*?: Video: (.*)", dumped)
    name, tag = "none", None
    if found:
        name = re.split(r"[ ,(]", found[1])[0]
        tag = re.search(r"\((....) / 0x", found[1])
    if tag and tag[1] in ("encv", "drmi"):
        return f"encrypted ({tag[1]})"
    if name != "none":
        return name
    own = tag[1] if tag else _matroska_codec(file)
    return f"unknown ({own})" if own else "unknown"


def _matroska_codec(file: BinaryIO) -> str | None:
    """The first video codec that a Matroska file names, such as V_MPEGI/ISO/VVC; None if none."""
    file.seek(0)
    found = re.search(rb"V_[A-Z0-9][A-Z0-9_/]+", file.read(HEADER))
    return found[0].decode() if found else None


def start_timecode(container: InputContainer, stream: VideoStream) -> str | None:
    """The timecode of the first frame as the file spells it: of a track, a stream or the whole."""
    tags = [stream.metadata, *(track.metadata for track in _data(container)), container.metadata]
    texts = [text for held in tags for name, text in held.items() if name.lower() == "timecode"]
    return texts[0].encode("utf-8", "replace").decode().strip() if texts else None


def timecode_counts(container: InputContainer) -> int | None:
    """How many frames a timecode track counts to its second; None where that is not to be seen.

    A QuickTime timecode sample is the number of the first frame since midnight; FFmpeg shows its
    label. The quotient of both is the rate. Reads the first packets of the container.
    """
    tracks = {track.index: track for track in _data(container) if "timecode" in track.metadata}
    if not tracks:
        return None
    for packet in islice(container.demux(), SEARCHED_PACKETS):
        track = tracks.get(packet.stream.index)
        if track is not None and packet.size == 4:
            label = [int(field) for field in re.findall(r"\d+", track.metadata["timecode"])]
            if len(label) != 4:
                return None
            seconds = (label[0] * 60 + label[1]) * 60 + label[2]
            number = int.from_bytes(bytes(packet), "big")
            return round((number - label[3]) / seconds) or None if seconds else None
    return None


def _data(container: InputContainer) -> list[DataStream]:
    return [stream for stream in container.streams if isinstance(stream, DataStream)]


def missing_bytes(path: str) -> int:
    """By how many bytes a file is shorter than its container declares; 0 where that is unknown.

    MP4 and QuickTime (ISO/IEC 14496-12), Matroska and WebM (RFC 9559), AVI (RIFF).
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(64)
        if start[:4] == b"RIFF" and start[8:11] == b"AVI":
            length = struct.unpack("<I", start[4:8])[0]
            end = 0 if length == 2**32 - 1 else 7 + length  # a last odd byte may lack its padding
        elif start[:4] == b"\x1aE\xdf\xa3":
            end = _matroska_end(start)
        else:
            end = max((end for _, end in _boxes(file, size)), default=0)
    return max(0, end - size)


def lacks_index(path: str) -> bool:
    """Whether an MP4 or QuickTime file has no index, which recorders write when they stop."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        kinds = [kind for kind, _ in _boxes(file, size)]
    return bool(kinds) and b"moov" not in kinds


def _matroska_end(start: bytes) -> int:
    """The end of the segment; 0 where its size is unknown, as in a live recording."""
    header, length = _vint(start, 4)
    position = 4 + length + header
    if start[position : position + 4] != b"\x18S\x80g":
        return 0
    segment, length = _vint(start, position + 4)
    return 0 if segment == 2 ** (7 * length) - 1 else position + 4 + length + segment


def _vint(content: bytes, position: int) -> tuple[int, int]:
    """An EBML number and its length in bytes."""
    first = content[position] if position < len(content) else 0
    length = 9 - first.bit_length()
    value = int.from_bytes(content[position : position + length], "big")
    return value & (2 ** (7 * length) - 1), length


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Type and declared end of each top-level box of an ISO media file; none of other files."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        length, kind, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        length = {0: size - position, 1: large}.get(length, length)
        if length < 8 or kind not in _BOXES:  # cameras append data of their own
            return
        position += length
        yield kind, position
