"""`sf-jax bench mediapipe_labels`: MediaPipe's labels of the images of face records, as a file.

    sf-jax bench mediapipe_labels faces --mediapipe-python PYTHON --task face_landmarker.task \\
        --out mediapipe.jsonl

PYTHON is of an environment with `mediapipe` 0.10.21, which needs NumPy below 2, libGL and libEGL.
FILE has a line an image: its hash under `image`, and the scores as MediaPipe has them under
`faceBlendshapes`, null where it finds no face. `sf-jax data flawed --labels FILE` makes records of
them, so that nothing else needs MediaPipe.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from data_pipelines import records
from sf_jax.bench.mediapipe import HAS, Answer, MediaPipe
from sf_jax.cli.arguments import Parser, UsageError
from sf_jax.face.channels import CHANNELS
from sf_jax.media import files
from sf_jax.systems.superface.pairs import image_hash


def line_of(image: str, answer: Answer) -> str:
    """A line of the file, as `face.label_json` reads it."""
    scores = None
    if answer.scores is not None:
        named = [(CHANNELS[i].arkit, float(answer.scores[i])) for i in HAS]
        scores = [{"categoryName": name, "score": round(score, 5)} for name, score in named]
    return json.dumps({"image": image, "faceBlendshapes": scores}, allow_nan=False) + "\n"


def _lines(folder: Path, peer: MediaPipe, found: list[bool]) -> Iterator[str]:
    """A line an image, each image once; whether it has a face is added to the list."""
    met: set[str] = set()
    for path in tqdm(records.files(folder), desc="label", unit="file", disable=None):
        for record in records.read(path):
            image = image_hash(record["image"])
            if image not in met:
                met.add(image)
                answer = peer(record["image"])
                found.append(answer.scores is not None)
                yield line_of(image, answer)


def main(argv: list[str]) -> None:
    """Writes the file.

    Raises:
      UsageError: it exists, or MediaPipe does not run.
    """
    parser = Parser(prog="sf-jax bench mediapipe_labels", description=__doc__)
    add = parser.add_argument
    add("records", type=Path, help="folder of record files")
    add("--mediapipe-python", required=True, metavar="PYTHON", help="of the environment")
    add("--task", type=Path, required=True, help="face_landmarker.task")
    add("--out", type=Path, required=True, metavar="FILE", help=".jsonl to write")
    options = parser.parse_args(argv)
    if options.out.suffix.lower() != ".jsonl":
        raise UsageError("a file of labels ends in .jsonl", path=options.out)
    if options.out.exists():
        raise UsageError("exists already; name another file", path=options.out)
    records.files(options.records)  # what cannot be read is reported before MediaPipe starts
    found: list[bool] = []
    with MediaPipe(options.mediapipe_python, options.task) as peer:
        with files.stream(options.out) as file:
            file.writelines(_lines(options.records, peer, found))
        version = peer.version
    print(f"MediaPipe {version} finds a face in {sum(found):,} of {len(found):,} images")
    print(f"labels in {options.out}")
