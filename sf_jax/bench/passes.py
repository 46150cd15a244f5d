"""`sf-jax bench passes`: model passes an answer takes when drafted, beside slot by slot.

Renders of people never trained on, one by one, and rendered videos whose frames each draft from the
one before: one that glides from one random expression into the next every second, every channel on
the move, and with `--take` one that moves as a recorded face does. Counts, no times, so other work
does not matter; the plan does, which is another on an accelerator.

    sf-jax bench passes --out experiments/results      # a table and a plot of the distribution
    sf-jax bench passes --take Recorded.csv            # a Live Link Face recording
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from data_pipelines.sampler import sample
from data_pipelines.synthetic import face_record
from sf_jax.cli import loading
from sf_jax.cli.arguments import Parser, former, whole
from sf_jax.face import livelink
from sf_jax.media import files
from sf_jax.reader.action import FaceAction
from sf_jax.reader.estimator import Model
from sf_jax.render.draw import draw
from sf_jax.render.head import builtin
from sf_jax.render.scene import random_scene

PERSON = 1_000_007  # whom training never met
HOLD = 30  # frames from one expression to the next, one second of a usual video


def gliding(frames: int) -> Iterator[np.ndarray]:
    """float [61]: random expressions that glide into one another."""
    for frame in range(frames):
        before, part = divmod(frame, HOLD)
        share = 0.5 - 0.5 * np.cos(np.pi * part / HOLD)
        yield (1 - share) * sample(PERSON + before) + share * sample(PERSON + before + 1)


def recorded(path: Path, frames: int) -> Iterator[np.ndarray]:
    """float [61]: stretches of a second and a half, spread over a recording."""
    stretch = 3 * HOLD // 2
    take = livelink.read(path).coefficients.astype(float)
    starts = np.linspace(0, max(len(take) - stretch, 0), max(frames // stretch, 1)).astype(int)
    for start in starts:
        yield from take[start : start + stretch]


def video(motion: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """uint8 [96, 96, 3]: one person and light."""
    scene = random_scene(PERSON, PERSON, len(builtin().identity))
    for coefficients in motion:
        yield draw(builtin(), coefficients, scene, 96, 96).image


def count(model: Model, images: Iterator[np.ndarray], linked: bool) -> dict[str, np.ndarray]:
    """Passes, token positions over the block's length, and rationale tokens, of each image.

    Args:
      linked: whether an image drafts from the answer to the one before.
    """
    found: dict[str, list[float]] = {
        "rationale": [],
        "rationale passes": [],
        "passes": [],
        "positions": [],
    }
    previous: FaceAction | None = None
    for image in tqdm(images, unit="image"):
        linked_to = [previous] if linked and previous else None
        made = jax.device_get(model.generate(*model.inputs([image]), previous=linked_to))
        (previous,) = model.actions(made, True)
        length = len(model.program.answer(made.choices[0]))
        found["rationale"].append(made.rationale_length[0])
        found["rationale passes"].append(made.rationale_passes[0])
        found["passes"].append(made.block_passes[0])
        found["positions"].append(made.block_positions[0] / length)
    return {name: np.array(numbers, float) for name, numbers in found.items()}


def table(found: dict[str, dict[str, np.ndarray]], slots: int) -> str:
    lines = [
        "| images | passes over the block, mean | most | of slots | positions / block length "
        "| passes over the rationale, mean | of tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, numbers in found.items():
        passes = numbers["passes"]
        lines.append(
            f"| {len(passes)} {name} | {passes.mean():.2f} | {passes.max():.0f} | {slots} "
            f"| {numbers['positions'].mean():.2f} | {numbers['rationale passes'].mean():.1f} "
            f"| {numbers['rationale'].mean():.1f} |"
        )
    return "\n".join(lines)


def plot(found: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """How many answers took so many passes over the block."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    most = int(max(numbers["passes"].max() for numbers in found.values()))
    width = 0.8 / len(found)
    for place, (name, numbers) in enumerate(found.items()):
        offset = (place - (len(found) - 1) / 2) * width
        share = np.bincount(numbers["passes"].astype(int), minlength=most + 1)
        axes.bar(np.arange(most + 1) + offset, share / share.sum(), width, label=name)
    axes.set(xlabel="passes over the block", ylabel="share of answers", xticks=range(1, most + 1))
    axes.legend()
    with files.replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="sf-jax bench passes", description=__doc__)
    parser.add_argument("--images", type=whole(1, 100_000), default=1000, help="still renders")
    former(parser, "--pictures", dest="images", type=whole(1, 100_000))
    parser.add_argument(
        "--frames", type=whole(1, 100_000), default=300, help="of each rendered video"
    )
    parser.add_argument("--take", type=Path, help="a Live Link Face CSV")
    parser.add_argument("--out", type=Path, help="folder for passes.md and passes.png")
    options = parser.parse_args(argv)
    model = loading.load_model(None)
    stills = (face_record(i, 0, "evaluation")["image"] for i in range(options.images))
    found = {
        "stills": count(model, stills, linked=False),
        "gliding frames": count(model, video(gliding(options.frames)), linked=True),
    }
    if options.take:
        motion = recorded(options.take, options.frames)
        found["recorded frames"] = count(model, video(motion), linked=True)
    text = table(found, len(model.schema.names))
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        plot(found, options.out / "passes.png")
        command = f"sf-jax bench passes --images {options.images} --frames {options.frames}"
        command += f" --take {options.take.name}" if options.take else ""
        files.write_text(
            options.out / "passes.md",
            f"# Passes of drafted answers\n\n`{command}`, with the plan "
            f"{model.decoder.plan}\n\n{text}\n\n![distribution](passes.png)\n",
        )


if __name__ == "__main__":
    main()
