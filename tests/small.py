"""A model of two layers, for tests of its files."""

from sf_jax.model.config import Config, TextConfig, VisionConfig


def small_config() -> Config:
    """Qwen3-VL of 24 channels, patches of 4 pixels and a vocabulary of 50 tokens."""
    vision = VisionConfig(
        depth=2,
        hidden_size=32,
        intermediate_size=40,
        num_heads=2,
        out_hidden_size=24,
        num_position_embeddings=25,
        deepstack_visual_indexes=(0,),
        patch_size=4,
    )
    text = TextConfig(
        vocab_size=50,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        mrope_section=(4, 2, 2),
    )
    return Config(vision, text, 7, 8, 9)
