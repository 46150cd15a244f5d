"""What decoding and training ask of a model: a hashable configuration with two methods."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from jaxtyping import PyTree

from sf_jax.model.inserts import Insert
from sf_jax.model.towers import TextConfig
from sf_jax.model.weights import TextWeights


class ModelWeights(Protocol):
    """The weights of a model that ends in a text model, in a `struct.dataclass`.

    Encoders of other modalities have fields of their own beside `text`.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def text(self) -> TextWeights: ...


class Architecture(Protocol):
    """A configuration of a model that ends in a text model; a static argument of `jax.jit`.

    A frozen dataclass. `model.config.Config` is the one of Qwen3-VL.

    Attributes:
      text: sizes of the text model.
      product_dtype: type of both operands of matrix products; sums stay float32.
      text_remat: what a text layer keeps for its gradient, "none" or a key of `remat.POLICIES`.
      unrolled: layers are written out one by one in place of a loop, for few layers on a CPU.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def text(self) -> TextConfig: ...
    @property
    def product_dtype(self) -> str: ...
    @property
    def text_remat(self) -> str: ...
    @property
    def unrolled(self) -> bool: ...

    def __hash__(self) -> int: ...

    def declare(self) -> ModelWeights:
        """The tree of weight declarations, `model.declared.Weight` in the position of each array.

        Initial values, abstract shapes, shardings, adapters and checkpoint maps derive from it.
        """

    def encode(self, weights: Any, inputs: Mapping[str, PyTree]) -> tuple[Insert, ...]:
        """Features of all that is not text, with the positions that they take.

        Args:
          weights: arrays in the tree that `declare` gives.
          inputs: by modality, such as "vision"; a modality without inputs is absent.
        """
