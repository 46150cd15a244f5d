"""`sf-jax bench judging`: what can be seen of a pair, and how far simulated judges are right.

    sf-jax bench judging --rig ict_facekit.npz --faces 100

Visible difference: one channel of a sampled face is changed by a step, and both faces are rendered
as a pair is. "difference" is that of `systems.superface.seen.visible_difference`; "seen" the share
of changes after which 1 % of the region's pixels or more differ by more than 2.3 in CIE Lab, which
is just noticeable between patches side by side; "asked" the share above the threshold for pairs.

Agreement: how often the render that is nearer to the image is also the one of the smaller vertex
error of the region, for pairs of faulty answers that differ in the region alone. Upper: lids and
brows; lower: lips.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_pipelines.sampler import sample
from data_pipelines.synthetic import sitting
from sf_jax.cli.arguments import Parser, whole
from sf_jax.face import regions
from sf_jax.face.channels import ANGLES, BLENDSHAPES, HIGH, LOW
from sf_jax.render import face_error, rigs
from sf_jax.render.head import builtin
from sf_jax.render.rig import Rig
from sf_jax.systems.superface.asking import VISIBLE
from sf_jax.systems.superface.renders import Renderer, head_of
from sf_jax.systems.superface.seen import NOTICEABLE, colour_difference, visible_difference
from sf_jax.systems.superface.simulated import sitter_of

STEPS = (0.1, 0.2, 0.3, 0.5)
SPOT = 0.01  # share of a region's pixels that must differ noticeably
MEASURED = {"upper": ("lids", "brows"), "lower": ("lips",)}


def steps(renderer: Renderer, faces: int) -> Iterator[tuple[str, float, float, bool]]:
    """Region, size of the change, visible difference, and whether enough pixels differ."""
    for number in range(faces):
        g = np.random.default_rng([61, number])
        base = np.round(sample(number), 1)
        head = head_of(base)
        for region in regions.PARTS:
            mask = renderer.region(region, head)
            i = int(g.choice(np.flatnonzero(regions.channels(region) & renderer.rig.known)))
            before = renderer(base, head)
            for step in STEPS:
                changed = base.copy()
                up = base[i] + step <= HIGH[i]
                changed[i] = np.clip(base[i] + (step if up else -step), LOW[i], HIGH[i])
                after = renderer(changed, head)
                spot = colour_difference(before, after)[mask] > NOTICEABLE
                difference = visible_difference(before, after, mask)
                yield region, step, difference, bool(spot.mean() >= SPOT)


def faulty(true: np.ndarray, g: np.random.Generator) -> np.ndarray:
    """An answer as a model might give it: actions missed, too weak or too strong, or made up."""
    out = true * np.where(g.random(len(true)) < 0.3, 0.0, g.uniform(0.5, 1.2, len(true)))
    made_up = (g.random(len(true)) < 0.08) * g.uniform(0, 0.5, len(true))
    out[BLENDSHAPES] += made_up[BLENDSHAPES]
    return np.round(np.clip(out, LOW, HIGH), 1).astype(np.float32)


def agreements(faces: int) -> Iterator[tuple[str, float, bool]]:
    """Region of a pair, by how many millimetres the vertex errors of its two answers differ, and
    whether distance and vertex error prefer the same."""
    for number in range(faces):
        shown = sitting(number, 7, "evaluation")
        sitter, g = sitter_of(shown), np.random.default_rng([62, number])
        base, other = (faulty(shown.coefficients, g) for _ in range(2))
        for region in regions.PARTS:
            here = regions.channels(region)
            both = np.stack([base, np.where(here, other, base)])
            both[:, ANGLES.start : ANGLES.start + 3] = 0
            true = np.stack([shown.coefficients] * 2)
            found = face_error.vertex_error(shown.rig, both, true, np.ones((2, len(here)), bool))
            first, second = np.sum([found[name] for name in MEASURED[region]], axis=0)
            gap = sitter.gap_of(both[0], both[1], region)
            if first != second and gap:
                yield region, abs(second - first), (second > first) == (gap > 0)


def _visible(rig: Rig, faces: int) -> None:
    renderer = Renderer(rig)
    renderer(np.zeros(len(LOW), np.float32), (0.0, 0.0, 0.0))  # compiles
    start = time.process_time()
    found = list(
        tqdm(steps(renderer, faces), total=8 * faces, desc=rig.name, leave=False, disable=None)
    )
    seconds = (time.process_time() - start) / (faces * 2 * (len(STEPS) + 2))
    print(
        f"\n{rig.name}, {faces} faces, threshold {VISIBLE:g}, {1 / seconds:.0f} renders a second\n"
    )
    print("| region | step | difference 10 % | median | 90 % | seen | asked |")
    print("|---|---|---|---|---|---|---|")
    for region in regions.PARTS:
        for step in STEPS:
            rows = [one for one in found if one[:2] == (region, step)]
            sizes = np.array([one[2] for one in rows])
            low, middle, high = np.quantile(sizes, (0.1, 0.5, 0.9))
            seen, asked = np.mean([one[3] for one in rows]), np.mean(sizes >= VISIBLE)
            cells = f"{low:.2f} | {middle:.2f} | {high:.2f} | {seen:.0%} | {asked:.0%}"
            print(f"| {region} | {step:g} | {cells} |")
    sizes, seen = np.array([one[2] for one in found]), np.array([one[3] for one in found])
    for bound in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0):
        above = sizes >= bound
        print(
            f"{bound:g} and more: {seen[above].mean():.0%} seen; below: {seen[~above].mean():.0%}"
        )


def main(argv: list[str]) -> None:
    """Prints both tables."""
    parser = Parser(prog="sf-jax bench judging", description=__doc__)
    add = parser.add_argument
    add("--rig", type=Path, nargs="*", default=(), help="rigs beside the built-in head")
    add("--faces", type=whole(1, 100_000), default=100, help="of each measurement")
    options = parser.parse_args(argv)
    for rig in (builtin(), *map(rigs.load, options.rig)):
        _visible(rig, options.faces)
    start = time.process_time()
    found = list(tqdm(agreements(options.faces), desc="agreement", leave=False, disable=None))
    print(f"\nagreement of image distance and vertex error ({options.faces} images)\n")
    for region in regions.PARTS:
        apart = np.array([one[1] for one in found if one[0] == region])
        agreed = np.array([one[2] for one in found if one[0] == region])
        far = apart >= np.median(apart)
        print(
            f"{region}: {agreed.mean():.0%} of {len(agreed)} pairs; {agreed[far].mean():.0%} of "
            f"the half whose vertex errors differ most, by {np.median(apart):.2f} mm and more"
        )
    print(f"{time.process_time() - start:.1f} CPU seconds")
