"""Tiny random checkpoints and what transformers computes from them.

Run with a Python that has torch and transformers:

    python tests/convert/reference.py OUT [VARIANT...]

Each variant becomes a directory of OUT with `config.json`, `model.safetensors` and `cases.npz`. The
latter holds, under `CASE/NAME`, the inputs as a processor emits them and the outputs: `logits`,
`positions` [3, B, T], `vision` [tokens, D] and `deepstack` [levels, tokens, D]; `half_logits`, of a
bfloat16 copy of the model; and unless rows are padded on the right `greedy` [B, 32], the likeliest
continuation, and `gaps` [B, 32], the lead of each of its tokens over the next likeliest, as a share
of the largest logit.
"""

import copy
import sys
from pathlib import Path

import numpy as np
import torch
from any_torchvision import import_torchvision

import_torchvision()  # before transformers, which looks for it
import transformers  # noqa: E402

IMAGE, START, END, VIDEO = 7, 8, 9, 10
VOCABULARY = 160
PATCH_WIDTH = 3 * 2 * 4 * 4  # channels, frames, rows, columns
CONTINUED = 32


def vision_config(heads: int, head_dim: int, depth: int, taps: list[int], side: int) -> dict:
    return {
        "depth": depth, "hidden_size": heads * head_dim, "intermediate_size": 80,
        "num_heads": heads, "out_hidden_size": 48, "num_position_embeddings": side**2,
        "deepstack_visual_indexes": taps, "patch_size": 4, "hidden_act": "gelu_pytorch_tanh",
    }  # fmt: skip


def text_config(
    heads: int, kv_heads: int, head_dim: int, section: list[int] | None, theta: float
) -> dict:
    rope = {"rope_type": "default", "rope_theta": theta}
    if section is not None:
        rope |= {"mrope_section": section, "mrope_interleaved": True}
    return {
        "vocab_size": VOCABULARY, "hidden_size": 48, "intermediate_size": 72,
        "num_hidden_layers": 4, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": head_dim, "rope_parameters": rope, "attention_bias": False,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
    }  # fmt: skip


# Position grids of 7, 5 and 6 positions a side: none is the grid of an image below.
VARIANTS = {
    "gqa_tied_16": {
        "vision": vision_config(4, 16, depth=4, taps=[1, 2], side=7),
        "text": text_config(4, 2, 12, section=[2, 2, 2], theta=1e4),
        "tied": True,
    },
    "mha_untied_64": {
        "vision": vision_config(2, 64, depth=3, taps=[0, 1, 2], side=5),
        "text": text_config(3, 3, 32, section=[6, 5, 5], theta=5e6),
        "tied": False,
    },
    "gqa_untied_72": {
        "vision": vision_config(1, 72, depth=3, taps=[0], side=6),
        "text": text_config(6, 2, 8, section=[2, 1, 1], theta=1e5),
        "tied": False,
    },
    "text_tied": {"text": text_config(4, 2, 16, section=None, theta=1e6), "tied": True},
    "text_untied": {"text": text_config(2, 2, 32, section=None, theta=1e4), "tied": False},
}

# Each row of a batch: words, then for each image its grid in merged tokens. All cases have three
# rows of 17 to 32 tokens and those with images three or four, so that two compilations serve all.
CASES: dict[str, tuple[str, list[tuple[int, list[tuple[int, int]]]]]] = {
    "text": ("none", [(20, []), (20, []), (20, [])]),
    "one": ("none", [(12, [(3, 2)]), (12, [(2, 3)]), (14, [(1, 4)])]),
    "several": ("none", [(9, [(2, 3), (1, 3), (3, 1)]), (17, [(4, 2)]), (27, [])]),
    "left": ("left", [(9, [(4, 2)]), (9, []), (12, [(2, 3), (2, 1)])]),
    "right": ("right", [(9, [(4, 2)]), (9, []), (12, [(2, 3), (2, 1)])]),
}


def build(variant: dict, seed: int) -> torch.nn.Module:
    """A model with large weights and perturbed norms and biases, so that a wrong formula shows."""
    if "vision" in variant:
        config = transformers.Qwen3VLConfig(
            text_config=variant["text"] | {"tie_word_embeddings": variant["tied"]},
            vision_config=variant["vision"],
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            vision_start_token_id=START,
            vision_end_token_id=END,
            tie_word_embeddings=variant["tied"],
        )
        kind = transformers.Qwen3VLForConditionalGeneration
    else:
        config = transformers.Qwen3Config(**variant["text"], tie_word_embeddings=variant["tied"])
        kind = transformers.Qwen3ForCausalLM
    config._attn_implementation = "eager"
    model = kind(config).eval().float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                embedding = "embed" in name and "patch" not in name
                fan_in = 48 if embedding else weight[0].numel()
                weight.copy_(1.5 * fan_in**-0.5 * noise)
            else:
                weight.copy_(("norm" in name and name.endswith("weight")) + 0.3 * noise)
    return model


def row_ids(words: int, grids: list[tuple[int, int]], generator: np.random.Generator) -> list:
    """Words spread before, between and after the images' tokens."""
    first, *others = np.array_split(generator.integers(11, VOCABULARY, words), len(grids) + 1)
    ids = list(first)
    for (height, width), following in zip(grids, others, strict=True):
        ids += [START, *[IMAGE] * (height * width), END, *following]
    return ids


def inputs(
    side: str, rows: list, patch_width: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """The arrays a processor would emit."""
    ids = [row_ids(words, grids, generator) for words, grids in rows]
    length = max(map(len, ids))
    tokens, mask = np.full((len(ids), length), 3), np.zeros((len(ids), length), np.int64)
    for i, row in enumerate(ids):
        place = slice(length - len(row), None) if side == "left" else slice(len(row))
        tokens[i, place], mask[i, place] = row, 1
    out = {"input_ids": tokens, "attention_mask": mask}
    grids = [(1, 2 * height, 2 * width) for _, own in rows for height, width in own]
    if grids:
        out["image_grid_thw"] = np.array(grids)
        count = sum(h * w for _, h, w in grids)
        out["pixel_values"] = generator.uniform(-1, 1, (count, patch_width)).astype(np.float32)
    return out


def outputs(model: torch.nn.Module, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    given = {name: torch.tensor(array) for name, array in arrays.items()}
    found = {}
    if "pixel_values" in given:
        given["mm_token_type_ids"] = (given["input_ids"] == IMAGE).int()
        seen = model.model.visual(given["pixel_values"], grid_thw=given["image_grid_thw"])
        found["vision"] = seen.pooler_output.numpy()
        found["deepstack"] = np.stack([level.numpy() for level in seen.deepstack_features])
        found["positions"] = model.model.get_rope_index(
            given["input_ids"],
            given["mm_token_type_ids"],
            image_grid_thw=given["image_grid_thw"],
            attention_mask=given["attention_mask"],
        )[0].numpy()
    else:
        positions = (given["attention_mask"].cumsum(-1) - 1) * given["attention_mask"]
        found["positions"] = np.stack([positions.numpy()] * 3)
    found["logits"] = forward(model, given)
    found["half_logits"] = forward(copy.deepcopy(model).bfloat16(), given)
    if (arrays["attention_mask"][:, -1] != 0).all():
        found |= continuation(model, given)
    return found


def forward(model: torch.nn.Module, given: dict) -> np.ndarray:
    if hasattr(model.model, "rope_deltas"):
        model.model.rope_deltas = None
    return model(**given).logits.float().numpy()


def continuation(model: torch.nn.Module, given: dict) -> dict[str, np.ndarray]:
    if hasattr(model.model, "rope_deltas"):
        model.model.rope_deltas = None
    out = model.generate(
        **given,
        max_new_tokens=CONTINUED,
        min_new_tokens=CONTINUED,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        pad_token_id=0,
    )
    logits = torch.stack(out.logits, 1)
    best = logits.topk(2, -1).values
    return {
        "greedy": out.sequences[:, -CONTINUED:].numpy(),
        "gaps": ((best[..., 0] - best[..., 1]) / logits.abs().max()).numpy(),
    }


def main(out: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    for seed, name in enumerate(names or VARIANTS):
        variant, generator = VARIANTS[name], np.random.default_rng(seed)
        model = build(variant, seed)
        model.save_pretrained(out / name)
        arrays = {}
        for case, (side, rows) in CASES.items():
            if "vision" not in variant:
                rows = [(words + 4 * len(grids), []) for words, grids in rows]
            given = inputs(side, rows, PATCH_WIDTH, generator)
            with torch.no_grad():
                found = outputs(model, given)
            arrays |= {f"{case}/{key}": value for key, value in (given | found).items()}
        np.savez(out / name / "cases.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
