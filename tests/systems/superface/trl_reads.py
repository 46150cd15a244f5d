"""What TRL makes of a line of a preference dataset, as JSON; null where TRL is not installed.

Reads the line from standard input. Run with a Python that has TRL (extra `porting`).
"""

import importlib.util
import json
import sys

from any_torchvision import import_torchvision

if importlib.util.find_spec("trl") is None:
    print("null")
    sys.exit()
import_torchvision()  # before transformers, which looks for it
from trl import data_utils  # noqa: E402

example = json.load(sys.stdin)
found = {
    name: data_utils.prepare_multimodal_messages(example["prompt"] + example[name], ["the image"])
    for name in ("chosen", "rejected")
}
print(json.dumps(found | {"conversational": data_utils.is_conversational(example)}))
