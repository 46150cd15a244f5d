"""Every kind of picture file gives the picture it shows, or one clear error."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from sf_jax.media import costs, images
from sf_jax.media.images import (
    BACKGROUND,
    ImageError,
    TooLargeError,
    read_bytes,
    read_image,
    read_noted,
)


@pytest.fixture(scope="module")
def colour() -> np.ndarray:
    """A smooth, textured picture, 48 x 64, that differs from each of its turns and mirrors."""
    rows, columns = np.mgrid[0:48, 0:64]
    waves = np.stack(
        [rows * 5, columns * 3.5, 128 + 80 * np.sin(rows / 7) * np.cos(columns / 9)], axis=-1
    )
    return waves.astype(np.uint8)


@pytest.fixture(scope="module")
def grey(colour: np.ndarray) -> np.ndarray:
    return colour[..., 2]


def same_grey(read: np.ndarray, grey: np.ndarray) -> bool:
    expected = np.repeat(grey[..., None], 3, axis=2).astype(int)
    return read.shape == expected.shape and np.abs(read - expected).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_colour_is_read_exactly(tmp_path: Path, colour: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(colour).save(path, **({"lossless": True} if suffix == "webp" else {}))
    read = read_image(path)
    assert read.dtype == np.uint8 and read.flags.writeable
    np.testing.assert_array_equal(read, colour)
    np.testing.assert_array_equal(read_image(str(path)), colour)


def test_grey_and_one_bit(tmp_path: Path, grey: np.ndarray) -> None:
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert same_grey(read_image(tmp_path / "grey.png"), grey)
    Image.fromarray(grey > 128).save(tmp_path / "bits.png")
    assert same_grey(read_image(tmp_path / "bits.png"), np.where(grey > 128, 255, 0))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path, grey: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    assert same_grey(read_image(path), grey)


def test_a_dark_picture_of_sixteen_bits_stays_dark(tmp_path: Path, grey: np.ndarray) -> None:
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / "dark.png")
    assert read_image(tmp_path / "dark.png").max() <= 1


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_floats_are_scaled_by_their_white(tmp_path: Path, grey: np.ndarray, white: float) -> None:
    Image.fromarray((grey / 255 * white).astype(np.float32)).save(tmp_path / "float.tif")
    assert same_grey(read_image(tmp_path / "float.tif"), grey)


@pytest.mark.parametrize("bad, words", [(np.nan, "not finite"), (-3.0, "from -3"), (1e9, "1e")])
def test_floats_that_are_no_picture(
    tmp_path: Path, grey: np.ndarray, bad: float, words: str
) -> None:
    values = (grey / 255).astype(np.float32)
    values[5, 6] = bad
    Image.fromarray(values).save(tmp_path / "float.tif")
    with pytest.raises(ImageError, match=rf"float\.tif.*{words}"):
        read_image(tmp_path / "float.tif")


def test_thirty_two_bits_are_scaled(tmp_path: Path, grey: np.ndarray) -> None:
    Image.fromarray(grey.astype(np.int32) * (2**31 // 256)).save(tmp_path / "deep.tif")
    assert same_grey(read_image(tmp_path / "deep.tif"), grey)


def test_transparent_pixels_lie_on_grey(tmp_path: Path, colour: np.ndarray) -> None:
    alpha = np.full(colour.shape[:2], 255, np.uint8)
    alpha[:10], alpha[10:20] = 0, 128
    Image.fromarray(np.dstack([colour, alpha])).save(tmp_path / "alpha.png")
    read = read_image(tmp_path / "alpha.png").astype(int)
    assert (read[:10] == BACKGROUND).all()
    half = (colour[10:20].astype(int) + BACKGROUND) / 2
    assert np.abs(read[10:20] - half).max() <= 2
    np.testing.assert_array_equal(read[20:], colour[20:])


def test_a_transparent_colour_counts_as_transparent(tmp_path: Path, grey: np.ndarray) -> None:
    Image.fromarray(np.maximum(grey, 1) * (grey > 100)).save(tmp_path / "t.png", transparency=0)
    read = read_image(tmp_path / "t.png")
    assert (read[grey <= 100] == BACKGROUND).all() and (read[grey > 100] > 100).all()


def test_palette(tmp_path: Path, colour: np.ndarray) -> None:
    flat = Image.fromarray(colour).quantize(32)
    flat.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "palette.png"), np.array(flat.convert("RGB"))
    )
    flat.save(tmp_path / "clear.png", transparency=bytes([0] * 32))
    assert (read_image(tmp_path / "clear.png") == BACKGROUND).all()


def test_cmyk(tmp_path: Path, colour: np.ndarray) -> None:
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "cmyk.tif")
    assert np.abs(read_image(tmp_path / "cmyk.tif").astype(int) - colour).max() <= 2
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=98)
    assert np.abs(read_image(tmp_path / "cmyk.jpg").astype(int) - colour).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_rotation(tmp_path: Path, colour: np.ndarray, orientation: int, suffix: str) -> None:
    stored = {
        1: colour, 2: colour[:, ::-1], 3: colour[::-1, ::-1], 4: colour[::-1],
        5: colour.transpose(1, 0, 2), 6: np.rot90(colour),
        7: colour[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(colour, 3),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path), colour)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(read_image(opened), colour)


def test_a_damaged_exif_block_is_no_reason_to_stop(tmp_path: Path, colour: np.ndarray) -> None:
    Image.fromarray(colour).save(tmp_path / "exif.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\1")
    np.testing.assert_array_equal(read_image(tmp_path / "exif.png"), colour)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_of_an_animation_the_first_frame_is_read_and_that_is_noted(
    tmp_path: Path, colour: np.ndarray, suffix: str
) -> None:
    frames = [Image.fromarray(x).quantize(64).convert("RGB") for x in (colour, 255 - colour)]
    path = tmp_path / f"moving.{suffix}"
    extra = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **extra)
    read, notes = read_noted(path)
    assert np.abs(read.astype(int) - np.array(frames[0])).max() <= 8
    assert len(notes) == 1 and path.name in notes[0] and "first of 2 frames" in notes[0]


def test_a_still_picture_needs_no_note(tmp_path: Path, colour: np.ndarray) -> None:
    Image.fromarray(colour).save(tmp_path / "still.gif")
    assert read_noted(tmp_path / "still.gif")[1] == []


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (3, 200, 90)).save(tmp_path / "one.png")
    assert read_image(tmp_path / "one.png").tolist() == [[[3, 200, 90]]]


@pytest.mark.parametrize("suffix, mode", [("jpg", "RGB"), ("png", "L"), ("png", "I;16")])
def test_a_vast_picture_is_shrunk_and_still_shows_the_same(
    tmp_path: Path, suffix: str, mode: str
) -> None:
    path = tmp_path / f"vast.{suffix}"
    top = {"RGB": (250, 250, 250), "L": 250, "I;16": 250 * 257}[mode]
    picture = Image.new(mode, (8000, 6000))
    picture.paste(top, (0, 0, 8000, 1500))
    picture.save(path)
    read = read_image(path)
    assert min(read.shape[:2]) >= images.WORKING_SIDE and max(read.shape[:2]) <= 4000
    quarter = read.shape[0] // 4
    assert abs(int(read[: quarter - 8].mean()) - 250) <= 2 and read[quarter + 8 :].mean() < 2


def test_more_pixels_than_the_bound_are_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (300, 200)).save(tmp_path / "large.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 50_000)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"large\.png: 300 x 200 pixels, at most 50,000"):
        read_image(tmp_path / "large.png")


def test_pillows_own_bound_speaks_as_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (300, 200)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"large\.png: too large"):
        read_image(tmp_path / "large.png")


@pytest.mark.parametrize("kind", ["turned.jpg", "vast.jpg", "deep.png", "turned.tif", "clear.png"])
def test_bytes_are_read_as_their_file_is(tmp_path: Path, colour: np.ndarray, kind: str) -> None:
    picture, exif = Image.fromarray(colour), Image.Exif()
    if kind.startswith("turned"):
        exif[0x0112] = 6
    elif kind.startswith("vast"):
        picture = picture.resize((4200, 4100))
    elif kind.startswith("deep"):
        picture = Image.fromarray(colour[..., 2].astype(np.uint16) * 257)
    else:
        picture.putalpha(Image.fromarray(colour[..., 0]))
    picture.save(tmp_path / kind, exif=exif)
    read = read_bytes((tmp_path / kind).read_bytes(), 50_000_000)
    np.testing.assert_array_equal(read, read_image(tmp_path / kind))


def test_bytes_of_too_many_pixels_are_refused_before_decoding(
    colour: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(colour, "PNG")
    assert read_bytes(content, 256 * 192).shape == (192, 256, 3)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(TooLargeError, match=r"image: 256 x 192 pixels, at most 49,151 are read"):
        read_bytes(content, 256 * 192 - 1)
    with pytest.raises(ImageError, match="image: the file is empty"):
        read_bytes(b"", 1000)


def encoded(colour: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.tile(colour, (4, 4, 1))).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "gif", "bmp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files_name_file_and_reason(
    tmp_path: Path, colour: np.ndarray, kind: str, share: float
) -> None:
    whole = encoded(colour, kind)
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ImageError, match=rf"cut\.{kind}: (damaged|not an image)"):
        read_image(path)


def test_damaged_bytes_give_a_picture_or_a_clear_error(tmp_path: Path, colour: np.ndarray) -> None:
    generator = np.random.default_rng(0)
    path = tmp_path / "hit"
    for kind in ("png", "jpeg", "webp", "tiff", "gif", "bmp", "ppm"):
        whole = encoded(colour, kind)
        for _ in range(12):
            damaged = np.frombuffer(whole, np.uint8).copy()
            damaged[generator.integers(0, min(len(damaged), 400), 6)] = generator.integers(
                0, 256, 6
            )
            path.write_bytes(damaged.tobytes())
            try:
                read = read_image(path)
            except ImageError as error:
                assert "hit: " in str(error)
            else:
                assert read.dtype == np.uint8 and read.ndim == 3 and read.shape[2] == 3


@pytest.mark.parametrize(
    "content, words",
    [(b"", "empty"), (b"hello, world" * 20, "not an image"),
     (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image")],
)  # fmt: skip
def test_files_that_are_no_pictures(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "notes.png").write_bytes(content)
    with pytest.raises(ImageError, match=rf"notes\.png: .*{words}"):
        read_image(tmp_path / "notes.png")


def progressive(scans: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan, which changes nothing, is repeated."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (90, 120, 150)).save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * (scans - whole.count(b"\xff\xda")) + whole[-2:]


def paged(pages: int, order: str = "<") -> bytes:
    """A TIFF of 8 x 8 grey pixels whose pages share them."""
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 8, 279: 64}
    size = 2 + 12 * len(tags) + 4
    tags[273] = 8 + size * pages
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, tags[tag]) for tag in tags)
    out = [{"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)]
    for page in range(1, pages + 1):
        following = 8 + size * page if page < pages else 0
        out.append(struct.pack(order + "H", len(tags)) + entries)
        out.append(struct.pack(order + "I", following))
    return b"".join(out) + bytes([90] * 64)


def test_a_jpeg_of_very_many_scans_is_not_decoded(tmp_path: Path) -> None:
    assert read_bytes(progressive(images.MAX_SCANS), 10_000).shape == (64, 64, 3)
    many = progressive(images.MAX_SCANS + 1)
    with pytest.raises(ImageError, match="image: a JPEG of more than 100 scans"):
        read_bytes(many, 10_000)
    (tmp_path / "many.jpg").write_bytes(many)
    with pytest.raises(ImageError, match=r"many\.jpg: a JPEG of more than 100 scans"):
        read_image(tmp_path / "many.jpg")


@pytest.mark.parametrize("before, after", [(b"", b"\xff\xda" * 500), (b"\xff\xe1\1\xf6", b"")])
def test_scans_are_not_counted_where_there_are_none(before: bytes, after: bytes) -> None:
    """After the end, as in a photograph that a clip follows, and in a segment of metadata."""
    whole = progressive(12)
    segment = before + b"\xff\xda" * 250 if before else b""
    assert read_bytes(whole[:2] + segment + whole[2:] + after, 10_000).shape == (64, 64, 3)


@pytest.mark.parametrize("at", range(costs.BLOCK - 5, costs.BLOCK + 2))
def test_a_scan_is_counted_across_blocks(at: int) -> None:
    """The marker of the second scan starts `at` bytes after the first scan's header."""
    start = b"\xff\xd8\xff\xda\0\2"
    content = start + bytes(at) + b"\xff\xff\xda\0\2" + b"\xff\0\xff\xd0" * 9 + b"\xff\xd9"
    assert costs.jpeg_parts(io.BytesIO(content), 9, 9) == (2, 2)
    assert costs.jpeg_parts(io.BytesIO(content[: len(start) + at + 1]), 9, 9) == (1, 1)


@pytest.mark.parametrize(
    "segment", [b"\xff\xfe\0\2", b"\xff\xe1\0\4ab", b"\xff\xd8", b"\xff\xe0\0\2-"]
)
def test_a_jpeg_of_very_many_segments_is_not_decoded(tmp_path: Path, segment: bytes) -> None:
    whole = progressive(12)
    bare = costs.jpeg_parts(io.BytesIO(whole), images.MAX_SCANS, images.MAX_SEGMENTS)[1]
    content = whole[:2] + segment * 250_000 + whole[2:]
    (tmp_path / "many.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=r"many\.jpg: a JPEG of more than 10,000 segments"):
        read_image(tmp_path / "many.jpg")
    with pytest.raises(ImageError, match="image: a JPEG of more than 10,000 segments"):
        read_bytes(content, 10_000)
    most = whole[:2] + b"\xff\xfe\0\2" * (images.MAX_SEGMENTS - bare) + whole[2:]
    assert read_bytes(most, 10_000).shape == (64, 64, 3)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("pages, words", [(1, None), (3, "3"), (1500, "more than 1,000")])
def test_of_a_tiff_the_first_page_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, pages: int, words: str | None
) -> None:
    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "n_frames", None)  # takes minutes for many
    (tmp_path / "paged\x1b[2J.tif").write_bytes(paged(pages, order))
    read, notes = read_noted(tmp_path / "paged\x1b[2J.tif")
    assert (read == 90).all()
    name = f"{tmp_path}/paged\\x1b[2J.tif"  # a terminal obeys no note
    assert notes == ([f"{name}: the first of {words} frames was read"] * bool(words))


def test_pages_that_form_a_circle_or_lead_nowhere() -> None:
    circle = bytearray(paged(3))
    last = len(circle) - 64 - 4
    circle[last : last + 4] = struct.pack("<I", 8)
    assert costs.tiff_pages(io.BytesIO(circle), 50) == 50
    circle[last : last + 4] = struct.pack("<I", 2**32 - 1)
    assert costs.tiff_pages(io.BytesIO(circle), 50) == 3
    assert read_bytes(bytes(circle), 1000).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["ICO", "JPEG2000", "DDS", "ICNS", "PCX"])
def test_formats_that_are_not_read_are_named_and_not_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, kind)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=f"not an image in a known format but in {kind}; save it"):
        read_bytes(file.getvalue(), 10_000)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="not a file"):
        read_image(tmp_path)


def test_pil_pictures_are_read_and_left_as_they_were(colour: np.ndarray) -> None:
    opened = Image.open(io.BytesIO(encoded(colour, "jpeg")))
    read = read_image(opened)
    assert opened.size == (256, 192) and read.shape == (192, 256, 3)
    np.testing.assert_array_equal(read, np.array(opened.convert("RGB")))


def test_a_vast_pil_picture_keeps_its_size() -> None:
    buffer = io.BytesIO()
    Image.new("L", (4200, 4200), 90).save(buffer, "jpeg")
    opened = Image.open(buffer)
    assert max(read_image(opened).shape) < 4200 and opened.size == (4200, 4200)


def test_of_an_open_animation_the_frame_shown_is_read(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (9, 9), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    with Image.open(tmp_path / "a.gif") as opened:
        opened.seek(1)
        assert read_image(opened)[4, 4].tolist() == [0, 0, 255]
        assert opened.tell() == 1


def test_a_truncated_pil_picture_is_an_image_error(colour: np.ndarray) -> None:
    with pytest.raises(ImageError, match="damaged or truncated"):
        read_image(Image.open(io.BytesIO(encoded(colour, "jpeg")[:-800])))


def test_arrays(colour: np.ndarray) -> None:
    assert read_image(colour) is colour


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((4, 5)), r"float64 \[4, 5\]"),
        (np.zeros((4, 5, 4), np.uint8), r"uint8 \[4, 5, 4\]"),
        (np.zeros((0, 5, 3), np.uint8), r"uint8 \[0, 5, 3\]"),
        (np.zeros((4, 5, 3), np.float32), r"float32 \[4, 5, 3\], expected uint8"),
        (np.full((4, 5, 3), np.nan), "not finite"),
        (np.zeros((4, 5, 3), np.int64), "int64"),
    ],
)
def test_arrays_of_another_form(array: np.ndarray, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        read_image(array)


@pytest.mark.parametrize("thing", [None, 7, [1, 2]])
def test_things_that_are_no_pictures(thing: object) -> None:
    with pytest.raises(ImageError, match=type(thing).__name__):
        read_image(thing)  # type: ignore[arg-type]


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(ImageError, match="data:image/png;base64,") as error:
        read_image("data:image/png;base64," + "A" * 5000)
    assert len(str(error.value)) < 200
