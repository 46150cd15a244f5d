"""The dense Qwen3-VL releases by size, for parameter counts and abstract shapes without a download.

The values are those of `config.json` of `Qwen/Qwen3-VL-{2B,4B,8B,32B}-Instruct`. They were read
from public copies of these files, not from the files: 2B and 8B in pytorch/torchtitan
(`experiments/qwen3_vl`), 4B and 32B in projects that embed the file's text; the token ids, the
position grid and the vision tower of the larger two are also transformers' defaults.
`hf.load` reads the file that comes with the weights and does not use this table.
"""

from sf_jax.model.config import Config, TextConfig, VisionConfig


def _config(
    width: int, hidden: int, layers: int, heads: int, tied: bool, large_tower: bool
) -> Config:
    tower = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096}
    if large_tower:
        tower = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304}
    vision = VisionConfig(
        **tower,
        num_heads=16,
        out_hidden_size=width,
        num_position_embeddings=2304,
        deepstack_visual_indexes=(8, 16, 24) if large_tower else (5, 11, 17),
    )
    text = TextConfig(
        vocab_size=151_936,
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        mrope_section=(24, 20, 20),
        tie_word_embeddings=tied,
    )
    return Config(vision, text, 151_655, 151_652, 151_653)


QWEN3_VL = {
    "2B": _config(2048, 6144, 28, 16, tied=True, large_tower=False),
    "4B": _config(2560, 9728, 36, 32, tied=True, large_tower=False),
    "8B": _config(4096, 12_288, 36, 32, tied=False, large_tower=True),
    "32B": _config(5120, 25_600, 64, 64, tied=False, large_tower=True),
}
