"""What can be seen of pairs, and how far simulated judges are right, on a few faces."""

import re

import numpy as np
import pytest

from sf_jax import cli
from sf_jax.bench import judging
from sf_jax.face import regions
from sf_jax.face.channels import HIGH, LOW
from sf_jax.render.head import builtin
from sf_jax.systems.superface.renders import Renderer


def test_both_measurements_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "judging", "--faces", "2"]) == 0
    found = capsys.readouterr().out
    assert len(re.findall(r"^\| (upper|lower) \| 0\.\d \|", found, re.M)) == 8
    assert re.search(r"upper: \d+% of 2 pairs", found)


def test_larger_steps_differ_more_and_only_in_the_region() -> None:
    found = list(judging.steps(Renderer(builtin(), 64, 64), 6))
    mean = {step: np.mean([one[2] for one in found if one[1] == step]) for step in judging.STEPS}
    assert mean[0.1] < mean[0.2] < mean[0.3] < mean[0.5]
    assert {one[0] for one in found} == set(regions.PARTS) and len(found) == 6 * 2 * 4


def test_faulty_answers_are_in_range_and_in_tenths() -> None:
    true = np.where(np.arange(61) < 52, 0.9, -0.9)
    answer = judging.faulty(true, np.random.default_rng(0))
    assert (answer >= LOW).all() and (answer <= HIGH).all()
    assert np.allclose(answer * 10, np.round(answer * 10), atol=1e-5)
    assert (answer[:52] == 0).any() and (answer[:52] > 0.5).any()


def test_judges_agree_with_vertex_errors_more_often_than_not() -> None:
    found = list(judging.agreements(12))
    assert np.mean([one[2] for one in found]) > 0.65 and len(found) == 24
