"""A Qwen3-VL model: its sizes, as in the `config.json` of its checkpoints, and its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sf_jax.model import vision
from sf_jax.model.inserts import Insert
from sf_jax.model.towers import TextConfig, VisionConfig
from sf_jax.model.weights import Weights, declare


@dataclass(frozen=True)
class Source:
    """What a checkpoint holds beyond the fields above, so that it can be written again."""

    config_json: str  # the text of its `config.json`
    dtypes: tuple[tuple[str, str], ...]  # tensor name and stored type ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Config:
    """A whole model; hashable, so that it can be a static argument of `jax.jit`.

    Two models that differ in `source` alone are equal: where a model came from changes nothing
    about what it computes, and compiled functions are shared.
    """

    vision: VisionConfig | Any  # None for a model that reads text alone
    text: TextConfig
    image_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    product_dtype: str = "float32"  # of both operands of matrix products; sums stay float32
    vision_remat: str = "none"  # what of a layer is computed anew for its gradient: a key of
    text_remat: str = "none"  # `remat.POLICIES`
    unrolled: bool = False  # each layer written out, not one in a loop: for few layers on a CPU
    source: Source | None = field(default=None, compare=False, repr=False)

    def declare(self) -> Weights:
        """The tree of weight declarations of this model; see `model.declared`."""
        return declare(self.vision, self.text)

    def encode(self, weights: Any, inputs: Mapping[str, Any]) -> tuple[Insert, ...]:
        """Features of the images, with their DeepStack levels and the positions that they take."""
        patches = inputs.get("vision")
        if patches is None:
            return ()
        features, levels = vision.forward(
            weights.vision,
            patches,
            self.vision,
            self.product_dtype,
            self.vision_remat,
            self.unrolled,
        )
        return (Insert(features, patches.at, levels),)
