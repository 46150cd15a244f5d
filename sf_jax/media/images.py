"""Any image file a person may hand over → uint8 RGB, or one clear error."""

import io
import os
import warnings
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from sf_jax.media import kinds
from sf_jax.media.costs import jpeg_parts, tiff_pages
from sf_jax.media.errors import DataError, printable

MAX_PIXELS = 200_000_000  # an image of more is refused before it is decoded
MAX_SCANS = 100  # of a JPEG; a progressive one has about 10
MAX_SEGMENTS = 10_000  # of a JPEG; those with profiles and previews have some hundreds
MAX_PAGES = 1000  # of a TIFF, counted for the note on them
WORKING_SIDE = 2048  # larger images are shrunk by whole factors, to no less than this
BACKGROUND = 127  # grey under transparent pixels

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


ImageSource = str | os.PathLike | Image.Image | np.ndarray  # what `read_image` takes


class ImageError(DataError):
    """An image that cannot be read; the message names it and says why."""


class TooLargeError(ImageError):
    """An image of more pixels than are read."""


def read_image(image: ImageSource) -> np.ndarray:
    """Reads an image as uint8 [H, W, 3] RGB; see `read_noted`."""
    return read_noted(image)[0]


def read_noted(image: ImageSource) -> tuple[np.ndarray, list[str]]:
    """Reads an image as uint8 [H, W, 3] RGB, with a sentence on each thing left out of it.

    Grey, 16-bit, palette, CMYK and transparent images are converted: 16 bits are scaled, not cut,
    and transparent pixels are drawn on grey. EXIF rotation is applied. Of an animation the first
    frame is read. An image of more than `WORKING_SIDE` on both sides is shrunk by a whole factor.

    Raises:
      ImageError: missing, empty, truncated, corrupt, too large, or an array of another form.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image), []
    if isinstance(image, Image.Image):
        return _guarded(image.copy, "image")
    try:
        name = os.fsdecode(image)
    except TypeError:
        raise ImageError(
            f"{type(image).__name__} is no image: expected a path, a PIL image or a uint8 array "
            "[height, width, 3]"
        ) from None
    try:
        if not Path(name).is_file():
            reason = "not a file" if Path(name).exists() else "no such file"
            raise ImageError(reason, path=name)
        if not Path(name).stat().st_size:
            raise ImageError("the file is empty", path=name)
    except OSError as error:  # no permission, or a name that no file can have
        raise ImageError(f"{error.strerror or error}", path=name[:80]) from error
    return _guarded(lambda: _open(name, name), name)


def read_bytes(content: bytes, max_pixels: int, name: str = "image") -> np.ndarray:
    """Reads the bytes of an image file as `read_image` reads the file.

    Raises:
      TooLargeError: it has more than `max_pixels`; raised before they are decoded.
      ImageError: empty, truncated or corrupt.
    """
    if not content:
        raise ImageError("the file is empty", path=name)
    return _guarded(lambda: _open(io.BytesIO(content), name), name, max_pixels)[0]


def read_rgba(path: Path) -> np.ndarray:
    """An image file with its transparency, uint8 [H, W, 4]; opaque where it has none.

    Raises:
      ImageError: it is missing, of another format, truncated or corrupt.
    """
    if not path.is_file():
        raise ImageError("no such file", path=path)
    try:
        with _open(os.fspath(path), os.fspath(path)) as image:
            return np.array(image.convert("RGBA"))
    except ImageError:
        raise
    except Exception as error:  # decoders raise many kinds
        raise ImageError(f"cannot be read: {error}", path=path) from error


def rgba_of_bytes(content: bytes, max_pixels: int, name: str = "image") -> np.ndarray:
    """The bytes of an image file with their transparency, uint8 [H, W, 4].

    Raises:
      TooLargeError: it has more than `max_pixels`; raised before they are decoded.
      ImageError: it is of another format, truncated or corrupt.
    """
    try:
        with _open(io.BytesIO(content), name) as image:
            if image.width * image.height > max_pixels:
                raise TooLargeError(f"{image.width} x {image.height} pixels", path=name)
            return np.array(image.convert("RGBA"))
    except ImageError:
        raise
    except Exception as error:  # decoders raise many kinds
        raise ImageError(f"cannot be read: {error}", path=name) from error


def refusal(path: Path) -> ImageError | None:
    """The error for a file whose name claims a kind that is not read, unless its content is another
    image after all; None for every other file."""
    if kinds.reason(path) is None:
        return None
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            return None
        name = os.fspath(path)
        with warnings.catch_warnings(action="ignore"), _open(name, name) as image:
            return _raw(image, name)
    except ImageError as error:
        return error
    except Exception:  # the error of reading it is the one to report
        return None


def _raw(image: Image.Image, name: str) -> ImageError | None:
    """The error for a camera's raw file, which Pillow would read the thumbnail of."""
    if image.format == "TIFF" and kinds.is_raw(Path(name)):
        return ImageError(kinds.reason(Path(name)) or "", path=name)
    return None


def _reason(start: bytes, path: Path) -> str | None:
    """Why a file that no decoder knows is not read; None where neither beginning nor name shows."""
    if kinds.is_heif(start):
        return "a damaged or truncated HEIC" if kinds.reads_heif() else kinds.HEIF_MISSING
    return kinds.reason(path)


def _open(file: str | io.BytesIO, name: str) -> Image.Image:
    """Opens a file in one of `kinds.PICTURES`, which decodes nothing yet.

    Raises:
      ImageError: another format, named where it is known, or a JPEG of too many scans or segments.
    """
    Image.init()
    formats = [known for known in kinds.PICTURES if known in Image.OPEN]
    if isinstance(file, str) and kinds.reads_heif():  # not for the service, which reads bytes
        from pillow_heif import register_heif_opener  # late: few need it

        register_heif_opener()
        formats.append("HEIF")
    with open(file, "rb") if isinstance(file, str) else nullcontext(file) as content:
        scans, segments = jpeg_parts(content, MAX_SCANS, MAX_SEGMENTS)
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            many = f"{MAX_SCANS} scans" if scans > MAX_SCANS else f"{MAX_SEGMENTS:,} segments"
            raise ImageError(
                f"a JPEG of more than {many}, which takes too long to decode; "
                "save it again as a baseline JPEG",
                path=name,
            )
        content.seek(0)
        start = content.read(16)
    if isinstance(file, io.BytesIO):
        file.seek(0)
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError:
        if reason := _reason(start, Path(name)):
            raise ImageError(reason, path=name) from None
        for other, (_, accepts) in Image.OPEN.items():
            if other not in formats and accepts and accepts(start) is True:
                raise ImageError(
                    f"not an image in a known format but in {other}; save it as PNG or JPEG",
                    path=name,
                ) from None
        raise


def encode_png(image: np.ndarray) -> bytes:
    """An image uint8 [H, W, 3] RGB as the bytes of a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        shape = f"{array.dtype} {list(array.shape)}"
        reason = ""
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            reason = " with values that are not finite"
        raise ImageError(f"array: {shape}{reason}, expected uint8 [height, width, 3] RGB")
    return array


def _guarded(  # type: ignore[no-untyped-def]
    open_it, name: str, most: int | None = None
) -> tuple[np.ndarray, list[str]]:
    """Opens and converts; whatever a decoder raises on a damaged file becomes an ImageError."""
    most = MAX_PIXELS if most is None else most
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, checked below, and of damaged EXIF blocks
            with open_it() as opened:
                if error := _raw(opened, name):
                    raise error
                return _convert(opened, name, most)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not an image in a known format", path=name) from None
    except MemoryError as error:
        raise TooLargeError("too large for the memory that there is", path=name) from error
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"too large, at most {most:,} pixels are read", path=name) from error
    except Exception as error:  # decoders raise many kinds on damaged files
        raise ImageError("damaged or truncated", path=name) from error


def _convert(image: Image.Image, name: str, most: int) -> tuple[np.ndarray, list[str]]:
    if not image.width or not image.height:
        raise ImageError("has no pixels", path=name)
    if image.width * image.height > most:
        raise TooLargeError(
            f"{image.width} x {image.height} pixels, at most {most:,} are read", path=name
        )
    notes = _frames_note(image, name)
    sixteen_bits = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")
    )
    image.draft("RGB", (WORKING_SIDE, WORKING_SIDE))  # JPEG decodes to a fraction, cheaply
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    if image.mode.startswith("I") or image.mode == "F":
        image = _from_deep(image, sixteen_bits, name)
    image = _without_alpha(image)
    factor = min(image.size) // WORKING_SIDE
    image = image.convert("RGB")
    if factor > 1:
        image = image.reduce(factor)
    if turn is not None:
        image = image.transpose(turn)
    return np.array(image), notes


def _frames_note(image: Image.Image, name: str) -> list[str]:
    """A sentence on the frames of an animation, or the pages of a TIFF, that are not read."""
    if image.format == "MPO":  # further frames are previews
        return []
    frames = _frames(image)
    number = f"{frames:,}" if frames <= MAX_PAGES else f"more than {MAX_PAGES:,}"
    return [f"{printable(name)}: the first of {number} frames was read"] if frames > 1 else []


def _frames(image: Image.Image) -> int:
    """Frames or pages; those of a TIFF up to a bound: Pillow's count takes the square of them."""
    if not isinstance(image, TiffImageFile) or image.fp is None:
        return getattr(image, "n_frames", 1)
    position = image.fp.tell()
    pages = tiff_pages(image.fp, MAX_PAGES + 1)
    image.fp.seek(position)
    return pages


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where the block is missing or damaged, which is no reason to stop.

    Read after loading: TIFF images are by then turned, and say so.
    """
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the parser raises many kinds
        return 1


def _without_alpha(image: Image.Image) -> Image.Image:
    """The image on an even grey, where it is transparent."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, (BACKGROUND,) * 3 + (255,))
    return Image.alpha_composite(ground, image)


def _from_deep(image: Image.Image, sixteen_bits: bool, name: str) -> Image.Image:
    """Grey images of 16 or 32 bits or of floats, scaled to 8 bits.

    Files of 16 bits say so. The others do not say what white is: it is taken to be the least of
    255, 65535 and 2³¹ - 1, for floats of 1, 255 and 65535, that no pixel exceeds.
    """
    values = np.array(image)
    factor = min(image.size) // WORKING_SIDE
    if factor > 1:  # first, as the steps below need several times the memory
        size = (image.width // factor, image.height // factor)
        values = cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    if not np.isfinite(values).all():
        raise ImageError("holds values that are not finite", path=name)
    low, high = float(values.min()), float(values.max())
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0, 2.0**31 - 1)
    white = 65535.0 if sixteen_bits else next((w for w in whites if high <= w), None)
    if low < 0 or white is None:
        raise ImageError(
            f"grey values from {low:g} to {high:g}, expected 0 to {whites[-1]:g}", path=name
        )
    return Image.fromarray(np.rint(values * np.float32(255 / white)).astype(np.uint8))
