"""Picture processing against transformers' slow and fast Qwen3-VL processors.

What they make of 2,000 sizes and of five images is stored in `reference_images.npz`, written by
`reference_images.py` with transformers 5.23 and torchvision 0.28. Where there is a Python with
transformers (see `torch_python.py`) it is written afresh and compared.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sf_jax.convert.processor import ImageProcessor, ProcessorError
from sf_jax.media.resize import resized, resized_fixed_point, smart_size
from sf_jax.model.config import Config
from tests.convert import reference_images as reference
from tests.convert.torch_python import run_torch

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def known() -> dict[str, np.ndarray]:
    return dict(np.load(HERE / "reference_images.npz"))


def test_transformers_still_does_what_the_reference_says(tmp_path: Path, known: dict) -> None:
    run_torch("reference_images.py", str(tmp_path / "new.npz"))
    new = np.load(tmp_path / "new.npz")
    assert {"resized", "slow", "grids", "slow_ramp"} <= set(new)  # the fast one needs torchvision
    for name in new:
        np.testing.assert_array_equal(new[name], known[name], err_msg=name)


@pytest.mark.parametrize("bounds", range(len(reference.BOUNDS)))
def test_two_thousand_sizes_are_resized_alike(known: dict, bounds: int) -> None:
    sizes = reference.sizes().tolist()
    assert len(sizes) == 2_000
    ours = [smart_size(h, w, 32, *reference.BOUNDS[bounds]) for h, w in sizes]
    np.testing.assert_array_equal(ours, known["resized"][bounds])


@pytest.mark.parametrize("fast", [True, False])
def test_images_of_many_shapes_in_one_prompt(known: dict, fast: bool) -> None:
    pixels, grids = ImageProcessor(*reference.PIXELS, fast=fast)(reference.pictures())
    assert pixels.dtype == np.float32 and grids.dtype == np.int64
    np.testing.assert_array_equal(grids, known["grids"])
    assert len(pixels) == grids.prod(1).sum() and pixels.shape[1] == 3 * 2 * 16 * 16
    expected = known["slow"] + (known["fast"] if fast else 0)
    assert np.abs(known["fast"]).max() == 1  # so that one resampler cannot pass for the other
    np.testing.assert_array_equal(np.rint(pixels * 127.5 + 127.5), expected)


def test_both_resamplers_nearly_agree() -> None:
    picture = reference.textured(500, 700)
    for rows, columns in ((480, 672), (352, 480), (736, 1024)):
        exact = resized(picture, rows, columns).astype(int)
        fixed = resized_fixed_point(picture, rows, columns).astype(int)
        assert np.abs(exact - fixed).max() <= 3 and np.mean(exact != fixed) < 0.05
    np.testing.assert_array_equal(resized_fixed_point(picture, 500, 700), picture)


def test_an_even_image_stays_even() -> None:
    for level in (0, 1, 128, 255):
        even = np.full((40, 60, 3), level, np.uint8)
        for size in ((96, 32), (32, 96), (352, 352)):
            assert (resized_fixed_point(even, *size) == level).all()


def test_normalisation_is_the_fast_processors_to_the_last_bit(known: dict) -> None:
    pixels, _ = ImageProcessor(1024, 1024)([reference.levels_picture()])
    assert len(np.unique(pixels)) == 256
    np.testing.assert_array_equal(pixels, known["fast_ramp"])
    np.testing.assert_allclose(pixels, known["slow_ramp"], rtol=0, atol=6e-8)


def test_images_do_not_depend_on_one_another() -> None:
    processor = ImageProcessor(*reference.PIXELS)
    together, grids = processor(reference.pictures())
    alone = [processor([picture])[0] for picture in reference.pictures()]
    np.testing.assert_array_equal(together, np.concatenate(alone))
    assert [grid.prod() for grid in grids] == [len(pixels) for pixels in alone]


@pytest.mark.parametrize(
    "images, words",
    [
        ([], "no image was given"),
        ([np.zeros((40, 40, 3), np.uint8), np.zeros((2, 401, 3), np.uint8)],
         r"image 2: .*2 x 401 pixels .*more than 200 times"),
        ([np.zeros((0, 40, 3), np.uint8)], "image 1: .*nothing to show"),
        ([np.zeros((40, 40, 3), np.float32)], r"float32 \[40, 40, 3\], expected uint8"),
        ([np.zeros((40, 40, 4), np.uint8)], r"uint8 \[40, 40, 4\], expected three channels"),
        (["face.png"], "image 1: str"),
    ],
)  # fmt: skip
def test_bad_images_are_refused_in_one_line(images: list, words: str) -> None:
    with pytest.raises(ProcessorError, match=words) as error:
        ImageProcessor()(images)
    assert "\n" not in str(error.value)


RELEASED = {
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "Qwen2VLImageProcessorFast",
}  # fmt: skip


def write(folder: Path, **changes: object) -> Path:
    content = {name: value for name, value in (RELEASED | changes).items() if value is not ...}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return folder


def test_settings_are_read(tmp_path: Path, tiny_config: Config) -> None:
    assert ImageProcessor.load(write(tmp_path)) == ImageProcessor(65536, 16777216, 16, 2, 2)
    for name, fast in (("", True), ("Fast", True), ("Pil", False)):
        kind = f"Qwen2VLImageProcessor{name}"
        assert ImageProcessor.load(write(tmp_path, image_processor_type=kind)).fast == fast
    usual = json.loads(write(tmp_path).joinpath("preprocessor_config.json").read_text())
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "processor_config.json").write_text(
        json.dumps({"image_processor": usual, "processor_class": "Qwen3VLProcessor"})
    )
    newer = ImageProcessor.load(tmp_path / "newer")
    assert newer == ImageProcessor.load(tmp_path)
    assert tiny_config.vision is not None
    other = replace(tiny_config.vision, patch_size=14)
    with pytest.raises(ProcessorError, match=r"newer/processor_config.json, .*image_proc.*patch"):
        newer.check(other)
    with pytest.raises(ProcessorError, match=r"/preprocessor_config.json: patch_size is 16"):
        ImageProcessor.load(tmp_path).check(other)
    write(tmp_path)
    processor = ImageProcessor.load(tmp_path, max_pixels=1024 * 32 * 32)
    pixels, grids = processor([np.zeros((3000, 2000, 3), np.uint8)])
    assert grids[0].prod() == len(pixels) <= 4 * 1024
    write(tmp_path, size=..., min_pixels=4608, max_pixels=9216, rescale_factor=1 / 255)
    assert ImageProcessor.load(tmp_path) == ImageProcessor(4608, 9216, 16, 2, 2)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"image_processor_type": "CLIPImageProcessor"}, "image_processor_type': found .CLIPImage"),
        ({"image_mean": [0.48, 0.45, 0.4]}, "image_mean\\[0\\]': found 0.48"),
        ({"image_std": ...}, "image_std': is missing"),
        ({"patch_size": 0}, "patch_size': found 0, expected 1 or more"),
        ({"merge_size": ...}, "merge_size': is missing"),
        ({"resample": 2}, "resample': found 2"),
        ({"do_resize": False}, "do_resize': found false"),
        ({"size": {"longest_edge": 100}}, "size.shortest_edge': is missing"),
        ({"size": {"longest_edge": 100, "shortest_edge": 200}}, "size': min_pixels .* is 200"),
        ({"size": [1, 2]}, "size': found .*, expected an object"),
        ({"max_pixels": 1e9}, "max_pixels': found 1000000000.0, expected a whole number"),
        ({"min_pixels": True}, "min_pixels': found true, expected a whole number"),
        ({"patch_size": 10**30}, "patch_size': found 1000.*, expected 1024 or less"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor': found 0.0078.*, expected 1/255"),
        ({"rescale_factor": "1/255"}, "rescale_factor': found .*, expected a number"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, changes: dict, words: str) -> None:
    write(tmp_path, **changes)
    with pytest.raises(ProcessorError, match=f"preprocessor_config.json, field '{words}"):
        ImageProcessor.load(tmp_path)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessorError, match="preprocessor_config.json: no such file"):
        ImageProcessor.load(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("[]")
    with pytest.raises(ProcessorError, match="found \\[\\], expected an object"):
        ImageProcessor.load(tmp_path)
