"""Sizes and constants of the vision tower and of the text model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower. Names follow `vision_config` of Hugging Face's `config.json`."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int  # width of the text model that reads the features
    num_position_embeddings: int  # a square: the side of the learned position grid, squared
    deepstack_visual_indexes: tuple[int, ...]  # after these blocks a merger feeds a text layer
    patch_size: int = 16
    temporal_patch_size: int = 2  # a still image is repeated this often
    spatial_merge_size: int = 2  # patches a side that become one text token
    in_channels: int = 3

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of num_heads {self.num_heads}"
            )
        if self.head_dim % 4:
            raise ValueError(
                f"hidden_size {self.hidden_size} / num_heads {self.num_heads} is {self.head_dim}, "
                "expected a multiple of 4"
            )
        if self.position_side**2 != self.num_position_embeddings:
            raise ValueError(f"num_position_embeddings {self.num_position_embeddings} is no square")
        for block in self.deepstack_visual_indexes:
            if block >= self.depth:
                raise ValueError(
                    f"deepstack_visual_indexes names block {block}, the depth is {self.depth}"
                )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def patch_width(self) -> int:
        """Numbers in one flattened patch."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def position_side(self) -> int:
        return round(self.num_position_embeddings**0.5)


@dataclass(frozen=True)
class TextConfig:
    """The language model. Names follow `text_config` of Hugging Face's `config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    mrope_section: tuple[int, int, int]  # rotary frequencies for time, height, width
    rope_theta: float = 5_000_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is no multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}, expected an even number")
        if len(self.mrope_section) != 3 or sum(self.mrope_section) != self.head_dim // 2:
            raise ValueError(
                f"mrope_section {self.mrope_section} must be three that sum to head_dim / 2, "
                f"{self.head_dim // 2}"
            )
