"""Which texts are none: as the built-in model makes them of noise and stretched faces, and kin."""

import numpy as np
import pytest

from data_pipelines.sampler import sample
from sf_jax.decode import degenerate
from sf_jax.face.describe import describe

NUMBERS = np.arange(100)  # tokens that do not repeat


def is_degenerate(text: str, ids: np.ndarray) -> bool:
    """By the rules for plain sentences, which the cap does not change."""
    found = {
        degenerate.is_degenerate(text, ids, truncated=cut, free_form=False) for cut in (False, True)
    }
    assert len(found) == 1
    return found.pop()


def is_free_form_degenerate(text: str, ids: np.ndarray, truncated: bool = False) -> bool:
    return degenerate.is_degenerate(text, ids, truncated=truncated, free_form=True)


@pytest.mark.parametrize(
    "text",
    [
        ",,,;;",
        "1.,,,,, both brow tails fully lifted;;;;:, both brow tails clearly lifted",
        ". Expression:; Mouth: lips moderately puckered",
        "1. Expression: smile, , frown",
        "表情：，微笑",
        "1. 2. 3.",
        "?!",
        "1. Expression: smile\x1b wide",
        "1. Expression: smile \x00",
        "1. Expression: sm�ile",
    ],
)
def test_no_text(text: str) -> None:
    assert is_degenerate(text, NUMBERS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "1. Expression: smile with squint.\n2. Movements: at rest.",
        "**1. Facial Expression Category**: joy…\n\n- *brows*: raised (e.g., inner); eyes: wide",
        "1. 表情：微笑，眉毛上扬；眼睛：睁大。",
        "Expression: smile 🙂, cut in a character �",
        "A list:\n\t* one\r\n\t* two",
    ],
)
def test_text(text: str) -> None:
    assert not is_degenerate(text, NUMBERS)


def test_loops_of_any_period_anywhere() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        period = int(generator.integers(1, 9))
        unit = generator.permutation(50)[:period] + 100
        before, after = (generator.permutation(100)[: generator.integers(0, 20)] for _ in "ab")
        often = max(4, -(-12 // period))
        loop = np.concatenate([before, np.tile(unit, often), after])
        assert is_degenerate("text", loop)
        assert not is_degenerate("text", np.concatenate([before, np.tile(unit, 3), after]))
        assert not is_degenerate("text", np.concatenate([before, unit[:1].repeat(11), after]))


def test_descriptions_are_text() -> None:
    for seed in range(100):
        assert not is_degenerate(describe(sample(seed), seed).text, NUMBERS)


@pytest.mark.parametrize(
    "text",
    [
        "Values: 0, 0, 0, 0, 0, 0, 0.",
        "Eyes:: open",
        "| Region | State |\n| --- | --- | --- | --- |\n| mouth | smile |",
        "---",
        "yes yes yes yes yes yes yes yes yes yes yes yes yes",
    ],
)
def test_what_a_free_form_model_ends_by_itself_is_text(text: str) -> None:
    ids = np.unique(text.split(" "), return_inverse=True)[1]
    assert not is_free_form_degenerate(text, ids)
    assert is_free_form_degenerate("smile \x00", ids)
    assert is_free_form_degenerate("sm\ufffdile", ids)


def test_loops_of_a_free_form_model_reach_the_cap() -> None:
    generator = np.random.default_rng(1)
    for period in (*range(1, 9), 40):
        unit = generator.permutation(50)[:period] + 100
        loop = np.concatenate([NUMBERS, np.tile(unit, max(4, -(-12 // period)))])
        for cut in (loop, np.concatenate([loop, unit[: period // 2]])):  # within a period too
            assert is_free_form_degenerate("text", cut, truncated=True)
            assert not is_free_form_degenerate("text", cut)
            assert not is_free_form_degenerate("text", np.append(cut, 7), truncated=True)
    assert is_free_form_degenerate("1. 2. 3.", NUMBERS, truncated=True)
    assert not is_free_form_degenerate("Eyes:: open, and the mou", NUMBERS, truncated=True)
