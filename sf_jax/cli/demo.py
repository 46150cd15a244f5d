"""`sf-jax demo`: renders a made-up face, reads it, and prints true beside read coefficients."""

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from sf_jax.cli import loading
from sf_jax.cli.arguments import Parser, whole

if TYPE_CHECKING:
    import numpy as np

SEED = 1_000_007  # a made-up person who is in no training image
SIDE = 192  # pixels
SHOWN = 16  # channels
LEAST = 0.1  # smaller magnitudes, true and read, are left out


def main(argv: list[str]) -> None:
    parser = Parser(prog="sf-jax demo", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("demo"), help="folder for image, JSON, CSV and preview")
    add("--seed", type=whole(0, 2**32 - 1), default=SEED, help="of person, expression and scene")
    options = parser.parse_args(argv)
    from PIL import Image

    from data_pipelines.rigged import everyday
    from data_pipelines.sampler import sample
    from sf_jax.reader.results import Names, Results
    from sf_jax.render.draw import draw
    from sf_jax.render.head import builtin
    from sf_jax.render.scene import random_scene

    person = random_scene(options.seed, options.seed, len(builtin().identity))
    scene = everyday(person, cel=False)
    true = sample(options.seed)
    face = draw(builtin(), true, scene, SIDE, SIDE)
    with (
        closing(Results.open(options.out)) as results,  # which keeps a face.png of the user's own
        results.writing(Names(options.out, "face"), "sf-jax demo") as writing,
    ):
        Image.fromarray(face.image).save(writing.path(".png"), "PNG")
    found = _read(options.out / "face.png", options.out)
    print(f"\n{compared(true, found)}")


def _read(image: Path, out: Path) -> dict[str, float]:
    """The coefficients that `sf-jax predict IMAGE --out OUT` writes."""
    from sf_jax.reader.files import run
    from sf_jax.reader.job import prepare
    from sf_jax.reader.progress import waiting
    from sf_jax.reader.reader import PredictOptions

    with closing(prepare([image], PredictOptions(out=out, force=True))) as job:
        with waiting("loading the model"):
            model = loading.load_model(None)
        for failure in run(model, job):
            raise failure
        (names,) = job.plan.names.values()  # face.json, or where that is another's, beside it
        content: dict[str, float] = json.loads(names.path(".json").read_bytes())["coefficients"]
        return content


def compared(true: "np.ndarray", read: dict[str, float]) -> str:
    """True and read values of the channels that are strongest in either, and the mean error.

    Args:
      true: [61] in canonical order.
      read: channel name → value.
    """
    from sf_jax.face import channels

    pairs = {name: (float(true[channels.INDEX[name]]), value) for name, value in read.items()}
    order = sorted(pairs, key=lambda name: -max(map(abs, pairs[name])))
    rows = [f"{'channel':<20}  true   read"]
    for name in order[:SHOWN]:
        if max(map(abs, pairs[name])) >= LEAST:
            rows.append(f"{name:<20} {pairs[name][0]:5.2f}  {pairs[name][1]:5.2f}")
    blendshapes = [pairs[name] for name in channels.NAMES[channels.BLENDSHAPES] if name in pairs]
    error = sum(abs(a - b) for a, b in blendshapes) / len(blendshapes)
    return "\n".join([*rows, f"mean error of the {len(blendshapes)} blendshapes: {error:.3f}"])
