"""What transformers takes where two fields or two files disagree.

    python tests/convert/reference_precedence.py < CASES.json

CASES is {name: {file name: content}}, a directory each. Printed are, by name, the rotary parameters
and whether embeddings are tied, or the bounds of the image processor; null where transformers
refuses.
"""

import json
import sys
import tempfile
from pathlib import Path

from any_torchvision import import_torchvision


def read(files: dict[str, object], folder: Path) -> object:
    from transformers import AutoConfig, AutoImageProcessor

    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    if "config.json" in files:
        config = AutoConfig.from_pretrained(folder)
        return {"rope": config.text_config.rope_parameters, "tied": config.tie_word_embeddings}
    found = AutoImageProcessor.from_pretrained(folder)
    return {"bounds": [found.size["shortest_edge"], found.size["longest_edge"]]}


def main() -> None:
    import_torchvision()
    answers = {}
    for name, files in json.load(sys.stdin).items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                answers[name] = read(files, Path(folder))
            except Exception as error:
                print(f"{name}: {error}", file=sys.stderr)
                answers[name] = None
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
