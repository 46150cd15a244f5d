"""Run by a Python that has torch and transformers: a model directory of ours as theirs.

    python reference_builtin.py model DIRECTORY ARRAYS.npz OUT.npz PROMPT
    python reference_builtin.py counts < configs.json     # {name: content of config.json, …}

`model` reads uint8 pictures `picture_0`, … from ARRAYS and writes, for each, what AutoProcessor
makes of it and PROMPT, and the model's logits. `counts` prints the number of parameters of each
configuration, built without memory.
"""

import json
import sys

import numpy as np
import torch
from any_torchvision import import_torchvision

import_torchvision()  # before transformers, which looks for it
import transformers  # noqa: E402


def model(directory: str, arrays: str, out: str, prompt: str) -> None:
    torch.set_num_threads(1)
    processor = transformers.AutoProcessor.from_pretrained(directory)
    kind = transformers.Qwen3VLForConditionalGeneration
    network = kind.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    chat = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    found = {}
    with np.load(arrays) as pictures, torch.no_grad():
        for name in pictures.files:
            given = processor(text=[text], images=[pictures[name]], return_tensors="pt")
            network.model.rope_deltas = None
            logits = network(**given).logits
            for key in ("input_ids", "pixel_values", "image_grid_thw"):
                found[f"{name}/{key}"] = given[key].numpy()
            found[f"{name}/logits"] = logits.numpy()
    np.savez(out, **found)


def counts() -> None:
    found = {}
    for name, content in json.load(sys.stdin).items():
        config = transformers.Qwen3VLConfig.from_dict(content)
        with torch.device("meta"):
            network = transformers.Qwen3VLForConditionalGeneration(config)
        network.tie_weights()
        # parameters() gives a tied matrix once
        found[name] = sum(parameter.numel() for parameter in network.parameters())
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    model(*sys.argv[2:]) if sys.argv[1] == "model" else counts()
