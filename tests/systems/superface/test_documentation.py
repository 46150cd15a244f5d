"""The example in docs/preferences.md runs as it stands."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sf_jax.systems.superface import folder, store, training
from tests.systems.superface import judging

DOCUMENT = Path(__file__).parents[3] / "docs" / "preferences.md"
HEADING = "## Learning from judgements"


def example() -> str:
    """The Python of the section, without the marks around it."""
    section = DOCUMENT.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    return section.partition("```python\n")[2].partition("```")[0]


def fill(path: Path, count: int) -> None:
    """A folder of pairs, of which the first answer was chosen."""
    renders = np.zeros((2, 16, 16, 3), np.uint8)
    with folder.filling(path, folder.Header("none", "none", 16)) as adding:
        for number in range(count):
            pair, image = judging.pair(number, "lower")
            named = (replace(pair.side(side), render="0" * 32) for side in ("first", "second"))
            first, second = named
            adding.add(replace(pair, first=first, second=second), image, *renders)
    pairs = folder.read(path)
    with store.writing(pairs) as database:
        for number, pair in enumerate(pairs.pairs):
            database.add(f"judgement-{number}", judging.judgement(pair, "first"))


def test_the_example_of_learning_from_judgements(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "judge", 3)
    (tmp_path / "MODEL").symlink_to(random_model)
    monkeypatch.chdir(tmp_path)
    trained: list[tuple[Any, ...]] = []
    monkeypatch.setattr(training, "train", lambda *given: trained.append(given))
    exec(compile(example(), str(DOCUMENT), "exec"), {})
    ((recipe, source, groups, out),) = trained
    assert isinstance(recipe, training.Recipe) and source.is_dir() and not out.is_absolute()
    assert len(groups) == 3 and len(groups(0).answers) == 2
