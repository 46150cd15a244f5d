"""The checks of decoding that take too long for the suite; figures in the README come from here.

python -m tests.decode.decode_checks [NAME ...] [--pictures 1000]

lossless    drafted = sequential = reference = its own certificate, on the built-in model
tiny        the same on random small Qwen checkpoints with digits for tokens
sampling    drafted = sequential for five seeds a picture
bfloat16    drafted beside the reference in bfloat16
joint       200,000 draws of three slots against their enumerated joint distribution
fuzz        10,000 answers to random scores against the schema of `sf-jax schema`
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jsonschema
import numpy as np
from tqdm import tqdm

import sf_jax
from data_pipelines.synthetic import face_record
from sf_jax.cli.arguments import Parser
from sf_jax.decode.decoder import sampling_of
from sf_jax.decode.generate import SEQUENTIAL, Generated
from sf_jax.decode.reference import token_by_token
from sf_jax.decode.score import Score, score
from sf_jax.reader.estimator import Model
from sf_jax.reader.schema import channel_schema
from tests.decode import lossless, test_lossless

SCHEMA = channel_schema()

BATCH = 50
TIE, LOW_PRECISION_TIE = 1e-5, 2e-2


def faces(count: int) -> Iterator[list[np.ndarray]]:
    """Batches of renders of people never trained on."""
    for start in tqdm(range(0, count, BATCH), unit="batch"):
        numbers = range(start, min(start + BATCH, count))
        yield [face_record(i, 0, "evaluation")["image"] for i in numbers]


def tokens(model: Model, made: Generated) -> list[list[int]]:
    return [lossless.answer_ids(model.program, made, row, True) for row in range(len(made.choices))]


def certificate(model: Model, inputs: tuple, made: Generated, temperature: float = 0.0) -> Score:
    batch, prefix = inputs
    given = lossless.scored_rationale(model.program, made, True)
    sampling = sampling_of(temperature, 0, len(made.choices))
    return jax.device_get(
        score(
            model.weights,
            batch,
            model.program,
            *given,
            made.choices,
            sampling,
            model.config,
            prefix,
        )
    )


def check_lossless(count: int, dtype: str = "float32", tie: float = TIE) -> None:
    """Three ways to decode, and the certificate."""
    model = sf_jax.load(dtype=dtype)
    ties = {"drafted": 0, "sequential": 0}
    doubted = 0
    for images in faces(count):
        inputs = model.inputs(images)
        reference, gaps = token_by_token(
            model.weights,
            inputs[0],
            model.program,
            sampling_of(0.0, 0, len(images)),
            model.config,
            model.max_rationale,
        )
        for decoding in ties:
            made = jax.device_get(model.generate(*inputs, decoding=decoding))
            ties[decoding] += lossless.count_ties(tokens(model, made), reference, gaps, tie)
            least = certificate(model, inputs, made).least_margin
            assert (least >= -tie).all(), f"a margin of {least.min()}"
            doubted += int((least < 0).sum())
    print(
        f"{dtype}: {count} answers; ties with the reference: {ties}; answers whose certificate "
        f"rests on a tie: {doubted}"
    )


def check_sampling(count: int) -> None:
    model, differing = sf_jax.load(), 0
    for images in faces(count):
        inputs = model.inputs(images)
        for seed in range(5):
            drafted, plain = (
                jax.device_get(
                    model.generate(*inputs, temperature=1.0, seed=seed, decoding=decoding)
                )
                for decoding in ("drafted", "sequential")
            )
            pairs = zip(tokens(model, drafted), tokens(model, plain), strict=True)
            apart = [row for row, (a, b) in enumerate(pairs) if a != b]
            if apart:
                batch, prefix = inputs
                given = lossless.scored_rationale(model.program, drafted, True)
                least = jax.device_get(
                    score(
                        model.weights,
                        batch,
                        model.program,
                        *given,
                        drafted.choices,
                        sampling_of(1.0, seed, len(images)),
                        model.config,
                        prefix,
                    )
                ).least_margin
                assert (np.abs(least[apart]) <= TIE).all(), least[apart]
            differing += len(apart)
    print(f"sampling: {5 * count} answers, {differing} parted at a tie")


def check_tiny(count: int) -> None:
    """Random checkpoints, random pictures."""
    generator, ties = np.random.default_rng(0), 0
    whole = test_lossless.whole_schema()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = test_lossless.digit_tokenizer(Path(folder))
    for seed in tqdm(range(4), unit="checkpoint"):
        tiny = lossless.Tiny.make(lossless.SMALL, tokenizer, whole, seed)
        shapes = ((64, 96), (96, 64), (32, 64), (96, 96))
        images = [
            generator.integers(0, 256, (*shapes[i % 4], 3)).astype(np.uint8)
            for i in range(count // 4)
        ]
        drawn = lossless.sampling(len(images))
        reference, gaps = tiny.reference(images, drawn)
        for plan in (lossless.PLAN, SEQUENTIAL):
            made = tiny.answer(images, drawn, plan)
            rows = range(len(images))
            ids = [lossless.answer_ids(tiny.program, made, row, True) for row in rows]
            ties += lossless.count_ties(ids, reference, gaps)
            assert (tiny.certificate(images, made, drawn).least_margin >= -TIE).all()
    print(f"tiny: {count} answers of 4 random checkpoints, drafted and sequential: {ties} ties")


def check_fuzz(count: int) -> None:
    """At a temperature of 10,000 the scores are noise."""
    model = sf_jax.load()
    validator = jsonschema.Draft202012Validator(SCHEMA.json_schema())
    image = next(faces(1))[0]
    seen = set()
    for start in tqdm(range(0, count, 500), unit="batch"):
        seeds = list(range(start, start + 500))
        inputs = model.inputs([image] * 500, rationale=False)
        how = "drafted" if start % 2000 == 0 else "sequential"
        made = jax.device_get(
            model.generate(*inputs, rationale=False, temperature=1e4, seed=seeds, decoding=how)
        )
        for action in model.actions(made, False):
            text = action.text[action.text.rindex("{") :]
            validator.validate(json.loads(text))
            assert SCHEMA.format(action.answer) == text
            seen.add(text)
    print(f"fuzz: {count} answers, all valid, {len(seen)} different blocks")


def check_joint() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (32, 64, 3)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = test_lossless.digit_tokenizer(Path(folder))
    found = test_lossless.check_joint(test_lossless.toy(tokenizer), picture, 200_000, 2_000)
    print(f"joint: 200,000 draws, chi-squared p = {found:.3f}")


def main() -> None:
    everything = ("lossless", "tiny", "sampling", "bfloat16", "joint", "fuzz")
    parser = Parser(prog="python -m tests.decode.decode_checks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(everything))
    parser.add_argument("--pictures", type=int, default=1000)
    options = parser.parse_args()
    for name in options.names or everything:
        if name == "lossless":
            check_lossless(options.pictures)
        elif name == "bfloat16":
            check_lossless(options.pictures // 5, "bfloat16", LOW_PRECISION_TIE)
        elif name == "tiny":
            check_tiny(options.pictures // 5)
        elif name == "sampling":
            check_sampling(options.pictures)
        elif name == "joint":
            check_joint()
        elif name == "fuzz":
            check_fuzz(10 * options.pictures)
        else:
            parser.error(f"no check {name!r}; there are {', '.join(everything)}")


if __name__ == "__main__":
    main()
