"""What a modality contributes to a sequence: features, and the positions that they take.

Encoders of images, sound or anything else give inserts; the text model knows no modality.
"""

from flax import struct
from jaxtyping import Array, Float, Int


@struct.dataclass
class Insert:
    """Features that take the positions of placeholder tokens in a batch of sequences.

    Attributes:
      features: [B, M, D], in the text model's width; they replace the token embeddings.
      at: int32 [B, M], the sequence position of each feature; one of T or more is dropped, which is
        where padding goes.
      levels: [L, B, M, D], added at the same positions to the output of the first L layers
        (DeepStack); None for none.
    """

    features: Float[Array, "B M D"]
    at: Int[Array, "B M"]
    levels: Float[Array, "L B M D"] | None = None
