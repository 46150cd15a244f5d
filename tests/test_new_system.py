"""A system of another modality and schema goes the whole way without a change below `systems/`."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from sf_jax.convert.weight_files import load_weights, save_weights
from sf_jax.decode.drafts import Draft
from sf_jax.decode.generate import SEQUENTIAL, DraftPlan, Generated, generate
from sf_jax.decode.noise import Sampling
from sf_jax.decode.score import score
from sf_jax.model.declared import initialise
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.example import assemble
from sf_jax.train import mesh as meshes
from sf_jax.train.hooks import HookConfig
from sf_jax.train.task import Feed, RunConfig, run
from tests import new_system as tones
from tests.new_system import CONFIG, PROGRAM, Listen

COUNT, PROMPT = 8, 16  # tones read at once, and the length of their rows
GREEDY = Sampling(np.zeros(COUNT, np.float32), np.zeros(COUNT, np.uint32))


class Batches:
    """Rows of new tones without end; interrupted before step `stop`."""

    def __init__(self, stop: int | None = None):
        self.step, self.stop = 0, stop

    def __next__(self) -> Batch:
        if self.step == self.stop:
            raise KeyboardInterrupt
        numbers = range(self.step * Listen.rows, (self.step + 1) * Listen.rows)
        self.step += 1
        return assemble([[tones.example(number)] for number in numbers], tones.capacity())

    def get_state(self) -> int:
        return self.step

    def set_state(self, state: int) -> None:
        self.step = state


def trained(directory: Path, stop: int | None = None) -> tones.ToneWeights:
    task, mesh = Listen(), meshes.make({"data": 1}, jax.devices()[:1])
    state = task.create(initialise(task.declare(), seed=0), mesh)
    config = RunConfig(save_every=4, beside=HookConfig(log_every=1))
    return run(task, state, Feed(Batches(stop)), mesh, directory, config).weights


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tones")


@pytest.fixture(scope="module")
def weights(run_directory: Path) -> tones.ToneWeights:
    return trained(run_directory / "whole")


def heard(weights: tones.ToneWeights, plan: DraftPlan, sampling: Sampling) -> Generated:
    """Answers to tones never trained on."""
    rows = [[tones.example(10**6 + i, answered=False)] for i in range(COUNT)]
    batch = assemble(rows, tones.capacity(PROMPT), left=True)
    draft = Draft(np.zeros((COUNT, 2), np.int32), np.zeros((COUNT, 3), np.int32), None)
    options = (batch, PROGRAM, draft, sampling, CONFIG, plan, 1)
    return jax.device_get(generate(weights, *options, with_rationale=False))


def test_it_is_small() -> None:
    assert len(Path(tones.__file__).read_text().splitlines()) < 120


def test_it_learns_and_an_interrupted_run_resumes_to_the_bit(
    weights: tones.ToneWeights, run_directory: Path
) -> None:
    lines = (run_directory / "whole" / "metrics.jsonl").read_text().splitlines()
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in lines]
    assert losses[-1] < 0.75 * losses[0]
    with pytest.raises(KeyboardInterrupt):
        trained(run_directory / "stopped", stop=6)
    resumed = trained(run_directory / "stopped")
    jax.tree.map(np.testing.assert_array_equal, weights, resumed)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_it_answers_within_its_grammar_drafted_as_slot_by_slot(
    weights: tones.ToneWeights, temperature: float
) -> None:
    sampling = replace(
        GREEDY,
        temperature=GREEDY.temperature + np.float32(temperature),
        seed=np.arange(COUNT, dtype=np.uint32),
    )
    made = heard(weights, DraftPlan(block_widths=(8,)), sampling)
    plain = heard(weights, SEQUENTIAL, sampling)
    np.testing.assert_array_equal(made.choices, plain.choices)
    np.testing.assert_array_equal(made.repeats, plain.repeats)
    assert made.repeats.min() >= 1 and made.repeats.max() <= tones.FRAMES
    for row, count in enumerate(made.repeats):
        text = tones.TOKENIZER.decode(PROGRAM.answer(made.choices[row, :count]))
        assert text == tones.SCHEMA.format(
            PROGRAM.values[PROGRAM.kind[:3], made.choices[row, :count]]
        )
    if temperature:
        assert len(set(made.repeats.tolist())) > 1


def test_another_tone_gets_another_answer(weights: tones.ToneWeights) -> None:
    logs = heard(weights, DraftPlan(), GREEDY).log_probabilities[:, 0]
    assert np.abs(logs[0] - logs[1]).max() > 1e-3


def test_scores_are_those_of_generation(weights: tones.ToneWeights) -> None:
    made = heard(weights, DraftPlan(), GREEDY)
    rows = [[tones.example(10**6 + i, answered=False)] for i in range(COUNT)]
    batch = assemble(rows, tones.capacity(PROMPT), left=True)
    zeros = np.zeros(COUNT, np.int32)
    nothing = np.zeros((COUNT, 1), np.int32)
    options = (nothing, zeros, zeros, made.choices, GREEDY, CONFIG, None, made.repeats)
    found = jax.device_get(score(weights, batch, PROGRAM, *options))
    taken = np.take_along_axis(made.log_probabilities, made.choices[..., None], -1)[..., 0]
    real = np.arange(tones.FRAMES) < made.repeats[:, None]
    np.testing.assert_allclose(found.slots[real], taken[real], atol=1e-4)
    assert found.least_margin.min() >= -1e-5


def test_exported_and_loaded_again_it_answers_the_same(
    weights: tones.ToneWeights, tmp_path: Path
) -> None:
    save_weights(tmp_path, CONFIG.declare(), weights)
    loaded, _ = load_weights(tmp_path, CONFIG.declare())
    first, second = (heard(each, DraftPlan(), GREEDY) for each in (weights, loaded))
    jax.tree.map(np.testing.assert_array_equal, first, second)
