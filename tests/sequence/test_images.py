"""Images in examples: their tokens, their patches."""

import numpy as np
import pytest

from sf_jax.model.config import Config
from sf_jax.sequence import images


def test_images_take_their_runs_of_tokens_and_may_adjoin(
    tiny_config: Config, pictures: list[np.ndarray]
) -> None:
    tokens = [1, *[7] * 8, 9, *[7] * 6]
    found = images.image_inserts(tokens, [pictures[0], pictures[2], pictures[1]], tiny_config)
    assert [(insert.start, insert.merged, insert.advance) for insert in found] == [
        (1, (2, 3), 3), (7, (1, 2), 2), (10, (3, 2), 3)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([1, *[7] * 5, 9], "an image of 2 x 3 tokens meets fewer image tokens"),
        ([1, *[7] * 5, 9, 7], "an image of 2 x 3 tokens meets fewer image tokens"),
        ([1, *[7] * 6, 9, 7], "more runs of image tokens than images"),
        ([1, 9], "1 images have no image tokens"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(
    tiny_config: Config, pictures: list[np.ndarray], tokens: list[int], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        images.image_inserts(tokens, pictures[:1], tiny_config)


def test_sides_and_patches_must_fit_the_grid(tiny_config: Config) -> None:
    with pytest.raises(ValueError, match="an image of 32 x 48 pixels, expected multiples of 32"):
        images.token_grid(np.zeros((32, 48, 3), np.uint8), tiny_config.vision)
    with pytest.raises(ValueError, match="70 patches do not make whole tokens"):
        images.capacity(tiny_config, 96, 70)


def test_patches_of_images_without_text(tiny_config: Config, pictures: list[np.ndarray]) -> None:
    made = images.patches_of(pictures, tiny_config, 32)
    assert np.asarray(made.segments).sum(1).tolist() == [24, 24, 8]
    assert made.at[2].tolist() == [0, 1] + [32] * 6
