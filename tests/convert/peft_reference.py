"""The other side of `test_peft.py`: transformers and PEFT, run by a Python that has torch.

    python peft_reference.py make DIRECTORY   # a base, adapters and their logits from inputs.npz
    python peft_reference.py read DIRECTORY   # logits of DIRECTORY/exported on the same base

DIRECTORY holds `inputs.npz`: input_ids [B, T], pixel_values [P, patch_width], grids [pictures, 3].
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from any_torchvision import import_torchvision

import_torchvision()  # before transformers, which looks for it
import peft  # noqa: E402
import transformers  # noqa: E402

TEXT = dict(
    vocab_size=200, hidden_size=48, intermediate_size=96, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-6,
    rope_theta=5e6, tie_word_embeddings=True,
    rope_scaling=dict(rope_type="default", mrope_interleaved=True, mrope_section=[4, 2, 2]),
)  # fmt: skip
VISION = dict(
    depth=4, hidden_size=64, intermediate_size=96, num_heads=4, out_hidden_size=48,
    num_position_embeddings=49, deepstack_visual_indexes=[1, 2],
)  # fmt: skip
ADAPTERS = {
    "expression": dict(
        target_modules=r".*\.(qkv|attn\.proj|linear_fc[12]|[qkvo]_proj|gate_proj|up_proj|down_proj)",
        exclude_modules=r".*layers\.1\.self_attn\.q_proj", r=4, lora_alpha=6,
        rank_pattern={r"blocks\.0\.attn\.qkv": 2, r"layers\.[23]\.mlp\.down_proj": 7},
        alpha_pattern={r"layers\.0\..*": 11, r"merger\.linear_fc2": 1},
    ),
    "endings": dict(
        target_modules=["q_proj", "mlp.linear_fc1", "attn.proj", "merger.linear_fc2"],
        exclude_modules=["patch_embed.proj", "up_proj"], r=5, lora_alpha=3,
        layers_to_transform=[1, 2], rank_pattern={"q_proj": 3}, use_rslora=True,
    ),
    "all": dict(target_modules="all-linear", r=3, lora_alpha=7, use_rslora=True),
}  # fmt: skip


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Large weights and perturbed norms and biases, so that a wrong formula shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim == 1:
                value.add_(0.3 * noise)
            elif "lora_" in name:
                value.copy_(noise * 0.7 / value.shape[1] ** 0.5)
            elif "embed" in name and "patch" not in name:
                value.copy_(0.5 * noise)
            else:
                value.copy_(1.5 * noise / value[0].numel() ** 0.5)


def base(directory: Path) -> torch.nn.Module:
    return transformers.Qwen3VLForConditionalGeneration.from_pretrained(
        directory / "base", attn_implementation="eager", dtype=torch.float32
    ).eval()


def logits(model: torch.nn.Module, inputs) -> np.ndarray:
    ids = torch.tensor(inputs["input_ids"])
    with torch.no_grad():
        return model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=torch.tensor(inputs["pixel_values"]),
            image_grid_thw=torch.tensor(inputs["grids"]),
            mm_token_type_ids=(ids == 7).int(),
        ).logits.numpy()


def make(directory: Path) -> None:
    inputs = np.load(directory / "inputs.npz")
    config = transformers.Qwen3VLConfig(
        text_config=TEXT,
        vision_config=VISION,
        image_token_id=7,
        vision_start_token_id=8,
        vision_end_token_id=9,
        video_token_id=10,
        tie_word_embeddings=True,
    )
    model = transformers.Qwen3VLForConditionalGeneration(config)
    randomise(model, 1)
    model.save_pretrained(directory / "base")
    found = {"base": logits(base(directory), inputs)}
    for seed, (name, options) in enumerate(ADAPTERS.items()):
        settings = peft.LoraConfig(task_type="CAUSAL_LM", **options)
        adapted = peft.get_peft_model(base(directory), settings)
        for parameter in adapted.parameters():
            parameter.requires_grad_(False)
        lora = torch.nn.ParameterDict(
            {n.replace(".", "/"): p for n, p in adapted.named_parameters() if "lora_" in n}
        )
        randomise(lora, seed + 2)
        adapted.save_pretrained(directory / name)
        found[name] = logits(adapted.eval(), inputs)
        file = directory / name / "adapter_config.json"
        assert json.loads(file.read_text())["peft_type"] == "LORA"
    np.savez(directory / "logits.npz", **found)


def read(directory: Path) -> None:
    inputs = np.load(directory / "inputs.npz")
    adapted = peft.PeftModel.from_pretrained(base(directory), directory / "exported").eval()
    found = {
        "beside": logits(adapted, inputs),
        "merged": logits(adapted.merge_and_unload(), inputs),
    }
    np.savez(directory / "read.npz", **found)


if __name__ == "__main__":
    {"make": make, "read": read}[sys.argv[1]](Path(sys.argv[2]))
