"""What transformers' Qwen3-VL image processors make of sizes and images.

Run by a Python that has transformers (and for the fast processor torchvision):

    export PYTHONPATH=sf_jax/bench/torch_side
    python tests/convert/reference_images.py tests/convert/reference_images.npz

Everything starts from seeds, so the test makes the same sizes and images by importing this file.
"""

import sys

import numpy as np

BOUNDS = ((65_536, 16_777_216), (65_536, 1_048_576), (3_136, 200_704), (4_608, 9_216))
PICTURES = ((91, 67), (40, 333), (200, 120), (64, 96), (37, 41), (700, 500))  # height, width
PIXELS = (4_096, 16_384)  # bounds that keep the stored file small


def sizes() -> np.ndarray:
    """int [2000, 2] (height, width): usual images, tiny, huge and long ones, none over 200:1."""
    generator = np.random.default_rng(0)
    usual = generator.integers(1, 2_000, (1_000, 2))
    spread = np.exp(generator.uniform(0, np.log(9_000), (2_000, 2))).astype(np.int64)
    both = np.concatenate([usual, spread])
    return both[both.max(1) <= 200 * both.min(1)][:2_000]


def textured(height: int, width: int, seed: int = 1) -> np.ndarray:
    """uint8 [height, width, 3]: smooth waves, hard edges and a little noise."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + c)) * np.cos(y / (5 - c)) for c in range(3)]
    edges = 60 * ((x // 11 + y // 7) % 2)[..., None]
    noise = np.random.default_rng(seed).normal(0, 6, (height, width, 3))
    values = 110 + 80 * np.stack(waves, -1) + edges + noise
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def pictures() -> list[np.ndarray]:
    return [textured(*size, seed) for seed, size in enumerate(PICTURES)]


def levels_picture() -> np.ndarray:
    """uint8 [32, 32, 3]: a size that is not resized, with every level in it."""
    return np.arange(32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)


def _levels(pixel_values: np.ndarray) -> np.ndarray:
    """Patches as levels of 255, which compress; `levels_picture` shows the exact numbers."""
    return np.rint(pixel_values * 127.5 + 127.5).astype(np.uint8)


def main(path: str) -> None:
    from any_torchvision import import_torchvision

    with_fast = import_torchvision()
    print(f"torchvision: {with_fast}", file=sys.stderr)
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
        Qwen2VLImageProcessorPil,
        smart_resize,
    )

    content = {"resized": np.array(
        [[smart_resize(int(h), int(w), 32, *bounds) for h, w in sizes()] for bounds in BOUNDS],
        np.int32,
    )}  # fmt: skip
    kinds = {"slow": Qwen2VLImageProcessorPil}
    if with_fast:
        from transformers import Qwen2VLImageProcessor

        kinds["fast"] = Qwen2VLImageProcessor
    for name, kind in kinds.items():
        processor = kind(
            patch_size=16,
            merge_size=2,
            temporal_patch_size=2,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
            size={"shortest_edge": PIXELS[0], "longest_edge": PIXELS[1]},
        )
        out = processor(images=pictures(), return_tensors="np")
        content[name] = _levels(np.asarray(out["pixel_values"]))
        content["grids"] = np.asarray(out["image_grid_thw"])
        small = {"shortest_edge": 1024, "longest_edge": 1024}
        ramp = processor(images=[levels_picture()], size=small, return_tensors="np")
        content[f"{name}_ramp"] = np.asarray(ramp["pixel_values"])
    if with_fast:  # kept as its few differences, which compress
        content["fast"] = content["fast"].astype(np.int8) - content["slow"].astype(np.int8)
    np.savez_compressed(path, **content)


if __name__ == "__main__":
    main(sys.argv[1])
