"""The built-in model, from nothing: render, warm the tower up, train, evaluate, export.

    sf-jax train builtin_model --out runs/builtin

Stages, each resumed where it stopped:
  render    100,000 faces of 20,000 made-up people
  warm-up   the vision tower alone, on coefficients, landmarks and part labels (losses/readout.py)
  reading   the whole model on the keys of the numbers alone: all slots at once, from the picture
  language  the whole model on words and numbers (losses/supervised.py)
  export    sf_jax/builtin: safetensors, tokenizer, processor settings
  draft-heads   what foresees the exported model's words (train/draft_heads.py)
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from data_pipelines import loader, records, synthetic
from data_pipelines.sampler import sample
from sf_jax.cli.arguments import Parser
from sf_jax.convert import hf
from sf_jax.convert.processor import ImageProcessor
from sf_jax.decode import drafts
from sf_jax.decode.state import feed_tokens, prefill
from sf_jax.face import channels
from sf_jax.model.config import Config, TextConfig, VisionConfig
from sf_jax.model.declared import initialise
from sf_jax.model.weights import Weights
from sf_jax.reader import estimator
from sf_jax.reader.schema import channel_schema
from sf_jax.render.head import builtin
from sf_jax.render.rig import MATERIALS
from sf_jax.sequence import images as image_inputs
from sf_jax.sequence import tokenizer as tokenizers
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.tokenizer import (
    IMAGE,
    VISION_END,
    VISION_START,
    SentencePieceTokenizer,
    Tokenizer,
)
from sf_jax.systems.semanticface import readout
from sf_jax.systems.semanticface.sequences import SequenceConfig, Sequences, vocabulary_texts
from sf_jax.train import (
    checkpoint,
    draft_heads,
    hooks,
    loop,
    mesh,
    optimizer,
    step,
)
from sf_jax.train.losses import readout as warmup
from sf_jax.train.losses import supervised as objective

SCHEMA = channel_schema()

PATCH_COUNT = 36  # 96 x 96 pixels, or 64 x 128
MAX_PIXELS = PATCH_COUNT * 16**2
BAD_STEPS = 10  # in a row, without a finite gradient
PROCESSOR = ImageProcessor(MAX_PIXELS // 2, MAX_PIXELS)
CLASSES = len(MATERIALS) + 1  # and background

VISION = VisionConfig(
    depth=6,
    hidden_size=192,
    intermediate_size=576,
    num_heads=3,
    out_hidden_size=256,
    num_position_embeddings=144,
    deepstack_visual_indexes=(1, 3),
)


@dataclass(frozen=True)
class DraftHeadsRecipe:
    """How to foresee words: from how many answers, and how much."""

    answers: int = 12_000
    heads: int = 9
    width: int = 128
    steps: int = 3_000


@dataclass(frozen=True)
class Recipe:
    """Everything about a run."""

    pictures: int = 100_000
    vocab_size: int = 1600
    warmup_batch: int = 64
    warmup: optimizer.OptimizerConfig = optimizer.OptimizerConfig(1.5e-3, 8000, 150)
    reading_batch: int = 64
    reading: optimizer.OptimizerConfig = optimizer.OptimizerConfig(1.5e-3, 3000, 100)
    language_batch: int = 32
    language: optimizer.OptimizerConfig = optimizer.OptimizerConfig(1e-3, 2000, 40)
    dense_share: float = 0.5  # of the warm-up's loss, which goes on in the later stages
    sequences: SequenceConfig = field(default_factory=SequenceConfig)
    draft_heads: DraftHeadsRecipe = field(default_factory=DraftHeadsRecipe)
    product_dtype: str = "bfloat16"
    seed: int = 0


def make_tokenizer(recipe: Recipe, directory: Path) -> Tokenizer:
    """Trained on descriptions of sampled faces; kept in the run's directory."""
    path = directory / "tokenizer.model"
    if not path.exists():
        faces = np.stack([sample(50_000_000 + i) for i in range(8000)])
        symbols = SCHEMA.symbols()
        tokenizers.train(vocabulary_texts(faces), symbols, recipe.vocab_size).save(directory)
    return SentencePieceTokenizer.load(path)


def make_config(tokenizer: Tokenizer, product_dtype: str = "float32") -> Config:
    text = TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        mrope_section=(12, 10, 10),
        rope_theta=10_000.0,
    )
    return Config(
        VISION,
        text,
        image_token_id=tokenizer.symbol(IMAGE),
        vision_start_token_id=tokenizer.symbol(VISION_START),
        vision_end_token_id=tokenizer.symbol(VISION_END),
        product_dtype=product_dtype,
    )


def landmark_mirror() -> np.ndarray:
    """The landmark opposite each landmark of the built-in head."""
    rig = builtin()
    places = rig.neutral[rig.landmarks]
    opposite = places * np.array([-1, 1, 1], np.float32)
    distances = np.linalg.norm(opposite[:, None] - places[None], axis=-1)
    return linear_sum_assignment(distances + distances.T)[1]


def dense_targets(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `losses.readout` learns of records, without their images."""
    parts = np.stack([record["parts"] for record in records])
    parts = np.where(parts == synthetic.BACKGROUND, CLASSES - 1, parts).astype(np.int32)
    blocks = rearrange(parts, "n (h a c) (w b d) -> n (h w a b) (c d)", a=2, b=2, c=4, d=4)
    return {
        "coefficients": np.stack([record["coefficients"] for record in records]),
        "landmarks": np.stack([record["landmarks"] for record in records]).astype(np.float32),
        "parts": blocks,
        "dense": np.array([record["dense"] for record in records], np.float32),
    }


def warmup_batch(records: Sequence[dict[str, Any]], config: Config) -> dict[str, Any]:
    """Records → a batch of `train.warmup`."""
    images = [record["image"] for record in records]
    patches = image_inputs.patches_of(images, config, PATCH_COUNT)
    return {"patches": patches, **dense_targets(records)}


def initial_warmup(config: Config, seed: int) -> warmup.WarmupWeights:
    """Fresh tower and read-out; rare actions start at about their frequency."""
    landmarks = len(builtin().landmarks)
    bias = np.full((len(channels.NAMES) + landmarks, 2), 0.5)
    bias[channels.BLENDSHAPES] = -2.0
    bias[channels.ANGLES] = 0.0
    readout = warmup.initialise_readout(config.vision, landmarks, 16 * CLASSES, bias, seed)
    return warmup.WarmupWeights(initialise(config.declare(), seed).vision, readout)


def exported_warmup(folder: Path) -> warmup.WarmupWeights:
    """Tower and read-out of an exported model, to go on from."""
    tower = hf.load(folder)[1].vision
    return warmup.WarmupWeights(tower, readout.load(folder / "readout.safetensors"))


def warm_up(
    recipe: Recipe, config: Config, data: Path, out: Path, start: Path | None
) -> warmup.WarmupWeights:
    devices, rule = mesh.make({"data": -1}), optimizer.build(recipe.warmup)
    first = exported_warmup(start) if start else initial_warmup(config, recipe.seed)
    state = step.create(first, rule, devices)
    low = jnp.asarray(channels.LOW)
    loss = partial(
        warmup.loss, low=low, config=config.vision, classes=CLASSES, dtype=recipe.product_dtype
    )
    batches = loader.faces(
        data,
        recipe.warmup_batch,
        partial(warmup_batch, config=config),
        seed=recipe.seed,
        mirror_share=0.5,
        landmark_mirror=landmark_mirror(),
    )
    chosen = hooks.HookConfig(bad_steps=BAD_STEPS, label="warm-up")
    return loop.run(
        state,
        step.build_step(loss, rule, devices),
        batches,
        devices,
        loop.LoopConfig(recipe.warmup.steps),
        out / "warmup",
        hooks=hooks.standard(chosen, lambda batch: {"images": len(batch["dense"])}),
    ).weights


class ModelBatches:
    """Records → batches for the whole model, each picture with its mirrored twin in the second
    half. The generator of a batch is seeded by its coefficients, so that a resumed run corrupts the
    same values."""

    def __init__(self, sequences: Sequences, seed: int, reading: bool):
        self.sequences, self.seed, self.reading = sequences, seed, reading
        self.opposite = landmark_mirror()

    def __call__(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        records = [*records, *(loader.mirrored(record, self.opposite) for record in records)]
        dense = dense_targets(records)
        coefficients = dense["coefficients"]
        checksum = int(np.abs(coefficients).sum(dtype=np.float64) * 1e6)
        generator = np.random.default_rng([self.seed, checksum])
        images = [record["image"] for record in records]
        if self.reading:
            return {**dense, "rows": self.sequences.reading(images, generator)}
        return {**dense, "rows": self.sequences.batch(images, coefficients, generator)}


def initial_model(config: Config, tokenizer: Tokenizer, tower: Any, seed: int) -> Weights:
    """A fresh language model behind a tower. Values that are near each other start alike."""
    model = initialise(config.declare(), seed)
    texts = sorted({text for slot in range(len(channels.NAMES)) for text in SCHEMA.values(slot)})
    numbers = np.array([float(text) for text in texts])
    generator = np.random.default_rng(seed)
    phases = np.pi * numbers[:, None] * np.array([0.0, 0.5, 1.0, 2.0, 4.0])
    waves = np.concatenate([np.cos(phases), np.sin(phases)], 1) / np.sqrt(phases.shape[1])
    table = 0.02 * waves @ generator.normal(size=(waves.shape[1], config.text.hidden_size))
    ids = np.array([tokenizer.symbol(text) for text in texts])
    embed = model.text.embed.at[ids].set(table.astype(np.float32))
    return Weights(tower, dataclasses.replace(model.text, embed=embed))


def initial_joint(config: Config) -> objective.JointWeights:
    """A tree of the right shapes, for reading checkpoints into."""
    return objective.JointWeights(
        initialise(config.declare(), 0), initial_warmup(config, 0).readout
    )


def train_model(
    recipe: Recipe,
    stage: str,
    tokenizer: Tokenizer,
    start: objective.JointWeights,
    data: Path,
    out: Path,
) -> objective.JointWeights:
    """The stage "reading" or "language", from the given weights."""
    config = make_config(tokenizer, recipe.product_dtype)
    reading = stage == "reading"
    rate = recipe.reading if reading else recipe.language
    devices, rule = mesh.make({"data": -1}), optimizer.build(rate)
    state = step.create(start, rule, devices)
    sequences = Sequences(config, tokenizer, SCHEMA, recipe.sequences, PATCH_COUNT)
    batch = recipe.reading_batch if reading else recipe.language_batch
    batches = loader.faces(
        data,
        batch // 2,
        ModelBatches(sequences, recipe.seed, reading),
        seed=recipe.seed + (1 if reading else 2),
    )
    loss = partial(
        objective.joint_loss,
        low=jnp.asarray(channels.LOW),
        config=config,
        classes=CLASSES,
        values=objective.Values.of(sequences.program, SCHEMA.decimals),
        share=recipe.dense_share,
        answer_length=sequences.answer_length,
        mirror=channels.mirror,
    )
    chosen = hooks.HookConfig(bad_steps=BAD_STEPS, label=stage)

    def count(batch: dict[str, Any]) -> dict[str, int]:
        return {"images": len(batch["dense"]), "tokens": int(np.sum(batch["rows"].segments))}

    return loop.run(
        state,
        step.build_step(loss, rule, devices),
        batches,
        devices,
        loop.LoopConfig(rate.steps),
        out / stage,
        hooks=hooks.standard(chosen, count),
    ).weights


def last_weights(template: Any, rule: Any, directory: Path) -> Any:
    """The weights of the newest checkpoint of a stage."""
    state = step.create(template, rule, mesh.make({"data": -1}))
    checkpoints = checkpoint.Checkpoints(directory / "checkpoints")
    restored = checkpoints.restore(state)
    checkpoints.close()
    if restored is None:
        raise checkpoint.CheckpointError(f"{directory}: this stage has no checkpoint yet")
    return restored[0].weights


def run(
    recipe: Recipe, out: Path, stages: Sequence[str], export: Path, start: Path | None = None
) -> None:
    data = out / "data"
    out.mkdir(parents=True, exist_ok=True)
    if "render" in stages:
        synthetic.render(data / "train", recipe.pictures)
    tokenizer = make_tokenizer(recipe, out)
    config = make_config(tokenizer)
    if "warm-up" in stages:
        warm_up(recipe, config, data / "train", out, start)
    if "reading" in stages:
        warm = last_weights(
            initial_warmup(config, 0), optimizer.build(recipe.warmup), out / "warmup"
        )
        model = initial_model(config, tokenizer, warm.vision, recipe.seed + 1)
        joint = objective.JointWeights(model, warm.readout)
        train_model(recipe, "reading", tokenizer, joint, data / "train", out)
    if "language" in stages:
        joint = last_weights(
            initial_joint(config), optimizer.build(recipe.reading), out / "reading"
        )
        train_model(recipe, "language", tokenizer, joint, data / "train", out)
    if "export" in stages:
        rule = optimizer.build(recipe.language)
        weights = last_weights(initial_joint(config), rule, out / "language")
        (export / estimator.DRAFT_HEADS_FILE).unlink(missing_ok=True)  # of another model's words
        half = np.float16  # half the size; the shipped package stays below 25 MB
        model = jax.device_get(weights.model)
        estimator.save(export, config, model, tokenizer, PROCESSOR, dtype=half)
        readout.save(export / "readout.safetensors", weights.readout)
    if "draft-heads" in stages:
        learn_draft_heads(data / "train", recipe.draft_heads, export)


def learn_draft_heads(directory: Path, recipe: DraftHeadsRecipe, export: Path) -> None:
    """From what the model says of training pictures."""
    model = estimator.load(export)
    images = [record["image"] for record in records.first(directory, recipe.answers)]
    states, words = [], []
    for start in tqdm(range(0, len(images), 50), desc="answers", unit="batch"):
        for state, said in said_from(model, images[start : start + 50]):
            states.append(state.astype(np.float16))
            words.append(said)
    chosen = draft_heads.DraftHeadsConfig(recipe.heads, recipe.width, recipe.steps)
    heads = draft_heads.learn(states, words, chosen)
    drafts.save_heads(export / estimator.DRAFT_HEADS_FILE, heads)


def said_from(
    model: estimator.Model, images: list[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each picture, the states [N, D] that yielded its words, and the tokens [N]."""
    end = int(model.program.ends.argmax())
    said = [[*action.words.tolist(), end] for action in model.predict_batch(images)]
    tokens = np.zeros((len(said), model.max_words + 1), np.int32)
    for row, words in enumerate(said):
        tokens[row, : len(words)] = words
    prompts, _ = model.inputs(images)
    states = np.asarray(_states_of(model.weights, prompts, tokens, model.config))
    for row, words in enumerate(said):
        yield states[row, : len(words)], tokens[row, : len(words)]


@partial(jax.jit, static_argnames="config")
def _states_of(weights: Weights, prompts: Batch, tokens: jax.Array, config: Config) -> jax.Array:
    """The state before each token of an answer."""
    lengths = jnp.full(len(tokens), tokens.shape[1])
    places = prompts.input_ids.shape[1] + tokens.shape[1]
    state = prefill(weights, prompts, places, config)
    _, states = feed_tokens(weights, state, tokens, lengths, config)
    return jnp.concatenate([state.last[:, None], states[:, :-1]], 1)


def main(argv: list[str] | None = None) -> None:
    everything = ("render", "warm-up", "reading", "language", "export", "draft-heads")
    parser = Parser(prog="sf-jax train builtin_model", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/builtin"))
    parser.add_argument("--stages", nargs="+", choices=everything, default=everything)
    parser.add_argument("--export", type=Path, default=estimator.BUILTIN)
    parser.add_argument("--start", type=Path, help="exported model whose tower to go on from")
    parser.add_argument("--pictures", type=int, help="rendered faces")
    for stage in ("warmup", "reading", "language"):
        parser.add_argument(f"--{stage}-steps", type=int)
    options = parser.parse_args(argv)
    recipe = Recipe()
    if options.pictures:
        recipe = dataclasses.replace(recipe, pictures=options.pictures)
    for stage in ("warmup", "reading", "language"):
        if steps := getattr(options, f"{stage}_steps"):
            changed = dataclasses.replace(getattr(recipe, stage), steps=steps)
            recipe = dataclasses.replace(recipe, **{stage: changed})
    run(recipe, options.out, options.stages, options.export, options.start)


if __name__ == "__main__":
    main()
