"""`sf-jax demo`: renders a made-up face and reads it."""

from contextlib import closing
from pathlib import Path

from sf_jax.cli import predict
from sf_jax.cli.arguments import Parser

SEED = 1_000_007  # a made-up person who is in no training image
SIDE = 192  # pixels


def main(argv: list[str]) -> int:
    parser = Parser(prog="sf-jax demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(argv)
    from PIL import Image

    from data_pipelines.sampler import sample
    from sf_jax.reader.results import Names, Results
    from sf_jax.render.draw import draw
    from sf_jax.render.head import builtin
    from sf_jax.render.scene import random_scene

    scene = random_scene(options.seed, options.seed, len(builtin().identity))
    face = draw(builtin(), sample(options.seed), scene, SIDE, SIDE)
    with (
        closing(Results.open(options.out)) as results,  # which keeps a face.png of the user's own
        results.writing(Names(options.out, "face"), "sf-jax demo") as writing,
    ):
        Image.fromarray(face.image).save(writing.path(".png"), "PNG")
    return predict.main([str(options.out / "face.png"), "--out", str(options.out)])
