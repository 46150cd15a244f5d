"""`sf-jax bench mediapipe_labels`: MediaPipe's labels of the images of face records, as a file.

    sf-jax bench mediapipe_labels faces --mediapipe-python PYTHON --task face_landmarker.task \\
        --out mediapipe.csv

PYTHON is of an environment with `mediapipe` 0.10.21, which needs NumPy below 2, libGL and libEGL.
Of a .jsonl file each line has an image under `image` and the scores as MediaPipe has them under
`faceBlendshapes`, null where it finds no face; of a .csv file a row has the scores by channel, or
none, in a tenth of the space. An image is named by the hash of its pixels or, with --by-number, by
the number that it was rendered from, which holds also where another machine renders the last bit
of a pixel otherwise. `sf-jax data flawed --labels FILE` makes records of either, so that nothing
else needs MediaPipe.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines import records
from data_pipelines.records import RecordError
from sf_jax.bench.mediapipe import HAS, Answer, MediaPipe
from sf_jax.cli.arguments import Parser, UsageError
from sf_jax.face.channels import CHANNELS, NAMES
from sf_jax.media import files
from sf_jax.systems.superface.pairs import image_hash

Named = tuple[str, Answer]  # an image and what was found in it


def line_of(image: str, answer: Answer) -> str:
    """A line of JSON lines, as `face.label_json` reads it."""
    scores = None
    if answer.scores is not None:
        named = [(CHANNELS[i].arkit, float(answer.scores[i])) for i in HAS]
        scores = [{"categoryName": name, "score": round(score, 5)} for name, score in named]
    return json.dumps({"image": image, "faceBlendshapes": scores}, allow_nan=False) + "\n"


def row_of(image: str, answer: Answer) -> list[str]:
    """A row of a table, as `face.labels` reads it; empty cells where no face was found."""
    if answer.scores is None:
        return [image, *("" for _ in HAS)]
    return [image, *(f"{float(answer.scores[i]):.3f}".rstrip("0").rstrip(".") for i in HAS)]


def _named(folder: Path, peer: MediaPipe, by_number: bool) -> Iterator[Named]:
    """Each image once, in order."""
    met: set[str] = set()
    for path in tqdm(records.files(folder), desc="label", unit="file", disable=None):
        for number, record in enumerate(records.read(path)):
            try:
                name = _name(record, by_number)
            except RecordError as error:
                raise error.at(path=path, record=number) from None
            if name not in met:
                met.add(name)
                yield name, peer(record["image"])


def _name(record: dict[str, Any], by_number: bool) -> str:
    if not by_number:
        return image_hash(record["image"])
    if "seed" not in record:
        raise RecordError("was rendered from no number; leave --by-number out", field="seed")
    return str(int(record["seed"]))


def _write(out: Path, found: Iterator[Named]) -> list[bool]:
    """Writes the file; whether each image has a face."""
    faces = []
    with files.stream(out) as file:
        table = csv.writer(file, lineterminator="\n") if out.suffix.lower() == ".csv" else None
        if table is not None:
            table.writerow(["image", *(NAMES[i] for i in HAS)])
        for image, answer in found:
            faces.append(answer.scores is not None)
            if table is None:
                file.write(line_of(image, answer))
            else:
                table.writerow(row_of(image, answer))
    return faces


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
    add("--out", type=Path, required=True, metavar="FILE", help=".jsonl or .csv to write")
    add("--by-number", action="store_true", help="name images by what they were rendered from")
    options = parser.parse_args(argv)
    if options.out.suffix.lower() not in (".jsonl", ".csv"):
        raise UsageError("a file of labels ends in .jsonl or .csv", path=options.out)
    if options.out.exists():
        raise UsageError("exists already; name another file", path=options.out)
    records.files(options.records)  # what cannot be read is reported before MediaPipe starts
    with MediaPipe(options.mediapipe_python, options.task) as peer:
        faces = _write(options.out, _named(options.records, peer, options.by_number))
        version = peer.version
    print(f"MediaPipe {version} finds a face in {sum(faces):,} of {len(faces):,} images")
    print(f"labels in {options.out}")
