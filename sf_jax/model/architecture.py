"""What decoding and training ask of a model: a hashable configuration with two methods."""

from collections.abc import Mapping
from typing import Any, Protocol

from sf_jax.model.inserts import Insert
from sf_jax.model.towers import TextConfig


class Architecture(Protocol):
    """A configuration of a model that ends in a text model; a static argument of `jax.jit`.

    Its tree of weights has at least a field `text`, the `TextWeights` of `text`, beside those of
    encoders of other modalities. `model.config.Config` is the one of Qwen3-VL.

    Attributes:
      text: sizes of the text model.
      product_dtype: type of both operands of matrix products; sums stay float32.
      text_remat: what a text layer keeps for its gradient, "none" or a key of `remat.POLICIES`.
      unrolled: layers are written out one by one in place of a loop, for few layers on a CPU.
    """

    @property
    def text(self) -> TextConfig: ...
    @property
    def product_dtype(self) -> str: ...
    @property
    def text_remat(self) -> str: ...
    @property
    def unrolled(self) -> bool: ...

    def __hash__(self) -> int: ...

    def declare(self) -> Any:
        """The tree of weight declarations, `model.declared.Weight` in the position of each array.

        Initial values, abstract shapes, shardings, adapters and checkpoint maps derive from it.
        """

    def encode(self, weights: Any, inputs: Mapping[str, Any]) -> tuple[Insert, ...]:
        """Features of all that is not text, with the positions that they take.

        Args:
          weights: arrays in the tree that `declare` gives.
          inputs: by modality, such as "vision"; a modality without inputs is absent.
        """
