"""Which files are images and videos, by the end of their name, and which of those are not read."""

import importlib.util
from pathlib import Path
from typing import Literal

Kind = Literal["picture", "video"]

# Formats that are read, by their names in Pillow, and the endings of their files. Each further
# format is a decoder that a stranger's file may reach. Pillow would also hand PostScript to an
# outside program, and decodes icons before their size is known.
PICTURES = {
    "JPEG": "jpg jpeg jpe jfif jif",
    "MPO": "mpo",
    "PNG": "png",
    "WEBP": "webp",
    "BMP": "bmp dib",
    "TIFF": "tif tiff",
    "GIF": "gif",
    "PPM": "ppm pgm pbm pnm",
    "AVIF": "avif avifs",
}
# Containers of frames, by their names in FFmpeg. None opens a further file.
VIDEOS = {
    "mov": "mp4 mov m4v qt 3gp 3g2 f4v",
    "matroska": "mkv webm",
    "avi": "avi",
    "mpegts": "mts m2ts ts",
    "mpeg": "mpg mpeg mpe vob",
    "mpegvideo": "m1v m2v",
    "asf": "wmv asf",
    "flv": "flv",
    "ogg": "ogv",
    "mxf": "mxf",
    "apng": "apng",
    "nut": "nut",
    "ivf": "ivf",
    "yuv4mpegpipe": "y4m",
    "dv": "dv dif",
}
ANIMATIONS = ("gif", "webp")  # also containers: a file of them is a picture by its name
_PICTURES = " ".join(PICTURES.values()).split()
_VIDEOS = " ".join(VIDEOS.values()).split()
_HEIF = "heic heif hif heics heifs".split()
_RAW = """3fr arw cr2 cr3 crw dcr dng erf gpr iiq k25 kdc mef mos mrw nef nrw orf pef raf rw2 rwl
sr2 srf srw x3f""".split()  # TIFF in many cases, of which Pillow would read the thumbnail
_JPEG_2000 = "jp2 j2k j2c jpc jpf jpx".split()
_CONVERT = "not a format that is read; convert it to JPEG or PNG"
_REASONS = {
    **dict.fromkeys(_RAW, "a camera's raw file; export it as JPEG, PNG or TIFF"),
    **dict.fromkeys(_JPEG_2000, "JPEG 2000 is not read; convert it to JPEG or PNG"),
    **dict.fromkeys("tga icb vda vst ico cur icns pcx dds qoi bpg fits".split(), _CONVERT),
    "jxl": "JPEG XL is not read; convert it to JPEG or PNG",
    **dict.fromkeys(("jxr", "wdp", "hdp"), "JPEG XR is not read; convert it to JPEG or PNG"),
    **dict.fromkeys(("psd", "psb", "xcf", "kra"), "a layered image; export it as JPEG or PNG"),
    **dict.fromkeys(("svg", "svgz", "eps", "wmf", "emf"), "a drawing, not pixels"),
    **dict.fromkeys(("exr", "hdr"), "a high dynamic range image; export it as PNG"),
    **dict.fromkeys(("braw", "r3d", "ari"), "a camera's raw video; export it as MP4 or MOV"),
}
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEIF_MISSING = "HEIC is read where pillow-heif is installed: pip install 'sf_jax[heic]'"


def kind_of(path: Path) -> Kind | None:
    """What a file claims to be; None for other kinds, and for names of hidden files."""
    ending = path.suffix.lower().removeprefix(".")
    if path.name.startswith("."):  # also what macOS writes beside a file, ._IMG_1.jpg
        return None
    if ending in _VIDEOS or ending in ("braw", "r3d", "ari"):
        return "video"
    known = ending in _PICTURES or ending in _HEIF or ending in _REASONS
    return "picture" if known else None


def reads_heif() -> bool:
    """Whether the library that decodes HEIC is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def reason(path: Path) -> str | None:
    """Why a file of such a name is not read, if its content is what the name claims; else None."""
    ending = path.suffix.lower().removeprefix(".")
    if ending in _HEIF:
        return None if reads_heif() else HEIF_MISSING
    return _REASONS.get(ending)


def is_raw(path: Path) -> bool:
    """Whether a name claims a camera's raw file."""
    return path.suffix.lower().removeprefix(".") in _RAW


def is_heif(start: bytes) -> bool:
    """Whether a file that starts so is HEIC, whatever its name."""
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS
