"""Rounds: when they stop, which model is kept, and how a run goes on."""

from pathlib import Path

import pytest

from sf_jax.systems.superface import rounds
from sf_jax.systems.superface.rounds import Preference, RoundsError


class Scripted:
    """A run whose rounds are preferred as a script says; notes what it was asked to do."""

    def __init__(self, *wins: int):
        self.wins, self.done = wins, list[tuple[str, int, int]]()

    def train(self, number: int, best: int) -> None:
        self.done.append(("train", number, best))

    def compare(self, number: int, best: int) -> Preference:
        self.done.append(("compare", number, best))
        return Preference(self.wins[number - 1], 100 - self.wins[number - 1], 0)

    def run(self, folder: Path, most: int = 6) -> rounds.Outcome:
        return rounds.run(folder, self.train, self.compare, most, report=lambda line: None)


def test_a_round_that_is_not_preferred_ends_the_run_and_the_best_is_kept(tmp_path: Path) -> None:
    script = Scripted(70, 56, 54, 90)
    found = script.run(tmp_path)
    assert found.best == 2 and len(found.preferences) == 3
    assert found.reason == "Round 3 is not clearly preferred to round 2: round 2 is kept."
    assert script.done[-2:] == [("train", 3, 2), ("compare", 3, 2)]


def test_where_the_first_round_is_worse_nothing_is_gained(tmp_path: Path) -> None:
    found = Scripted(40).run(tmp_path)
    assert found.best == 0 and "the model that the run began with is kept" in found.reason


def test_rounds_are_limited(tmp_path: Path) -> None:
    found = Scripted(60, 60, 60).run(tmp_path, most=2)
    assert found.best == 2 and "at most 2 rounds" in found.reason
    with pytest.raises(ValueError, match="0 rounds"):
        Scripted().run(tmp_path, most=0)


def test_a_run_goes_on_from_the_round_that_was_interrupted(tmp_path: Path) -> None:
    script = Scripted(70, 60, 30)
    trained = script.train

    def interrupted(number: int, best: int) -> None:
        if number == 2:
            raise KeyboardInterrupt
        trained(number, best)

    script.train = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        script.run(tmp_path)
    again = Scripted(0, 60, 30)
    found = again.run(tmp_path)
    assert [each[1:] for each in again.done if each[0] == "train"] == [(2, 1), (3, 2)]
    assert found.best == 2 and found.preferences[0].wins == 70
    finished = Scripted()
    assert finished.run(tmp_path) == found and not finished.done


def test_ties_are_half_a_win_and_nothing_judged_is_no_preference() -> None:
    found = Preference(30, 10, 60)
    assert found.rate == 0.6 and found.better and found.error == pytest.approx(0.03)
    assert str(found) == "preferred in 60% ± 6% of 100 judgements"
    assert not Preference(0, 0, 20).better and not Preference(0, 0, 0).better


def test_one_win_more_is_no_preference() -> None:
    """Equal models would be judged 55 to 45 about as often as not; 56 to 44 is more."""
    assert not Preference(55, 45, 0).better and Preference(56, 44, 0).better
    assert not Preference(1, 0, 99).better and Preference(30, 10, 60).better


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "rounds.json"),
        ('{"rounds": [{"number": 2, "wins": 1, "losses": 0, "ties": 0}]}', "round 1 is missing"),
        ('{"rounds": [{"number": 1, "wins": "many", "losses": 0, "ties": 0}]}', "wins"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / rounds.FILE).write_text(content)
    with pytest.raises(RoundsError, match=named) as found:
        Scripted().run(tmp_path)
    assert str(tmp_path / rounds.FILE) in str(found.value)
