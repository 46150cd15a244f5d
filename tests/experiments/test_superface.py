"""The study of SuperFace: its folder is of one study, and its arms and judgements are what it says.

`test_tiny.py` runs it whole.
"""

from pathlib import Path
from typing import Any

import pytest

from sf_jax.cli import main, recipes
from sf_jax.cli.arguments import UsageError
from sf_jax.reader import loading

STUDY = recipes.load("superface")
MESH: Any = None  # nothing is trained here


def run_of(out: Path, study: Any, labels: Path = STUDY.MEDIAPIPE) -> Any:
    return STUDY.Run(study, out, loading.BUILTIN, labels, MESH)


def test_a_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    STUDY.claim(run_of(tmp_path, STUDY.tiny(STUDY.STUDY)))
    STUDY.claim(run_of(tmp_path, STUDY.tiny(STUDY.STUDY)))
    with pytest.raises(UsageError, match="another study; name another --out"):
        STUDY.claim(run_of(tmp_path, STUDY.STUDY))
    (tmp_path / "labels.csv").write_text("image,JawOpen\n")
    with pytest.raises(UsageError, match="another labels"):
        STUDY.claim(run_of(tmp_path, STUDY.tiny(STUDY.STUDY), tmp_path / "labels.csv"))


def test_missing_labels_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "superface", "--out", str(tmp_path), "--labels", "none.csv"]) == 2
    assert "none.csv: no such file" in capsys.readouterr().err


def test_arms_stay_below_the_judgements_of_the_study() -> None:
    """Two regions are compared on each image of the comparison in every round."""
    study = STUDY.STUDY
    for arm in study.arms:
        if arm.by == "judgements":
            assert arm.most * (study.judgements + 2 * study.compared) <= 12_000


def test_rounds_ask_about_other_images_while_there_are_enough(tmp_path: Path) -> None:
    study = STUDY.STUDY
    run, images = run_of(tmp_path, study), [str(n) for n in range(study.images - study.compared)]
    first, second = (set(run._some(images, number)) for number in (0, 1))
    assert len(first) == len(second) == -(-study.judgements // study.per_image)
    assert not first & second


def test_seeds_share_nothing() -> None:
    assert len({STUDY.drawn(seed, number) for seed in range(9) for number in range(9)}) == 81
