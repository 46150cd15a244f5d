"""Any picture file a person may hand over → uint8 RGB, or one clear error."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 200_000_000  # beyond this a picture is refused before it is decoded
DRAFT_SIDE = 2048  # larger JPEGs are decoded at reduced size, which is all a face needs
EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
BEHIND_ALPHA = 127  # grey behind transparent pixels

Image.MAX_IMAGE_PIXELS = None  # the bound above is checked instead, with a clearer message


class ImageError(ValueError):
    """A picture that cannot be read; the message names it and says why."""


def read_image(image: str | os.PathLike | Image.Image | np.ndarray) -> np.ndarray:
    """Reads a picture as uint8 [H, W, 3] RGB.

    Grey, 16-bit, palette, CMYK and transparent pictures are converted (16 bits are scaled, not cut;
    transparent pixels lie on grey); EXIF rotation is applied; of an animation the first frame counts.

    Raises:
      ImageError: missing, empty, truncated, corrupt, too large, or an array of another form.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Image.Image):
        return _convert(image, "image")
    name = os.fspath(image)
    if not Path(name).is_file():
        raise ImageError(f"{name}: no such file")
    try:
        with Image.open(name) as opened:
            return _convert(opened, name)
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture in a known format") from None
    except ImageError:
        raise
    except Exception as error:  # decoders raise many kinds on damaged files
        raise ImageError(f"{name}: damaged or truncated: {error}") from error


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ImageError(
            f"array: {array.dtype} {list(array.shape)}, expected uint8 [height, width, 3]"
        )
    return array


def _convert(image: Image.Image, name: str) -> np.ndarray:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{name}: {image.width} x {image.height} pixels exceed {MAX_PIXELS:,}")
    image.draft("RGB", (DRAFT_SIDE, DRAFT_SIDE))
    image.seek(0) if getattr(image, "is_animated", False) else None
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _from_deep(np.asarray(image, np.float64), name)
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (BEHIND_ALPHA,) * 3 + (255,))
        image = Image.alpha_composite(ground, image)
    return np.asarray(image.convert("RGB"))


def _from_deep(values: np.ndarray, name: str) -> Image.Image:
    """16-bit and float grey pictures, scaled to 8 bits."""
    if not np.isfinite(values).all():
        raise ImageError(f"{name}: holds values that are not finite")
    top = values.max(initial=0.0)
    scale = 255.0 if top <= 1.0 else 255.0 / 65535.0 if top > 255.0 else 1.0
    return Image.fromarray(np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))
