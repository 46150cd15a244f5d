"""`sf-jax bench plans`: how wide to draft on this machine.

Times answers of the built-in model under plans that differ from the one in use by one thing each,
and slot by slot; plans take turns, image by image. The answers are the same with every plan,
which is checked.

    sf-jax bench plans --images 20
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from data_pipelines.synthetic import face_record
from sf_jax.cli import loading
from sf_jax.cli.arguments import Parser, former, whole
from sf_jax.decode.generate import SEQUENTIAL, DraftPlan


def candidates(plan: DraftPlan) -> list[DraftPlan]:
    """The plan, its neighbours, and none at all."""
    rationales = [replace(plan, rationale_width=width) for width in (1, 4, 6, 8, 10, 12, 16)]
    blocks = [
        replace(plan, block_widths=widths)
        for widths in ((), (64,), (32, 64), (48, 96), (24, 48, 72, 96))
    ]
    guesses = [replace(plan, low_precision_passes=count) for count in range(4)]
    growth = [replace(plan, growth=times) for times in (4, 64)]
    return list(dict.fromkeys([plan, *rationales, *blocks, *guesses, *growth, SEQUENTIAL]))


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="sf-jax bench plans", description=__doc__)
    parser.add_argument("--images", type=whole(1, 1000), default=20, help="(default: 20)")
    former(parser, "--pictures", dest="images", type=whole(1, 1000))
    parser.add_argument("--rounds", type=whole(1, 100), default=3, help="of which the least counts")
    options = parser.parse_args(argv)
    model = loading.load_model(None)
    images = [face_record(i, 0, "evaluation")["image"] for i in range(options.images)]
    plans = candidates(model.decoder.plan)
    seconds = np.full((len(plans), len(images)), np.inf)
    passes = np.zeros((len(plans), 2))
    texts: dict[int, str] = {}
    for plan in tqdm(plans, desc="compiling", unit="plan"):
        model.decoder.plan = plan
        model.predict(images[0], whole=True)
    for _ in tqdm(range(options.rounds), desc="rounds", unit="round"):
        passes[:] = 0
        for number, image in enumerate(images):
            for row, plan in enumerate(plans):
                model.decoder.plan = plan
                begun = time.perf_counter()
                action = model.predict(image, whole=True)
                taken = time.perf_counter() - begun
                seconds[row, number] = min(seconds[row, number], taken)
                passes[row] += action.passes["rationale"], action.passes["coefficients"]
                if texts.setdefault(number, action.text) != action.text:
                    raise SystemExit(f"image {number}: {plan} differs from {plans[0]}")
    means = seconds.mean(1)
    print(f"{'plan':<62}{'seconds':>9}{'ratio':>7}{'text':>7}{'block':>7}  (passes)")
    for row in np.argsort(means):
        shown = "slot by slot" if plans[row] == SEQUENTIAL else _shown(plans[row])
        text, block = passes[row] / len(images)
        print(
            f"{shown:<62}{means[row]:9.4f}{means[row] / means[0]:7.2f}{text:7.1f}{block:7.1f}"
            + ("  in use" if row == 0 else "")
        )


def _shown(plan: DraftPlan) -> str:
    return (
        f"rationale {plan.rationale_width}, block {plan.block_widths}, growth {plan.growth}, "
        f"low precision {plan.low_precision_passes}"
    )


if __name__ == "__main__":
    main()
