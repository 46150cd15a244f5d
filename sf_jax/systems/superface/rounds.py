"""Rounds of asking and training, and when to stop.

A round samples answers of the best model so far, asks which of them are nearer to their images,
trains on the judgements, and has the new model's answers to other images judged against those of
the best one. A model that is not clearly preferred ends the run: the judge, or the reward model
that stands for one, is then being exploited rather than followed. So a run halts one round after
the best by these judgements, and keeps the best.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sf_jax.media import files, small_files
from sf_jax.media.errors import DataError

FILE = "rounds.json"
LEVEL = 1.96  # standard errors of a 95 % interval


class RoundsError(DataError):
    """A file of rounds that is damaged."""


@dataclass(frozen=True)
class Preference:
    """Held-out judgements between a new model and the best one before it; "unclear" ones left out.

    Attributes:
      wins, losses, ties: of the new model.
    """

    wins: int
    losses: int
    ties: int

    @property
    def count(self) -> int:
        return self.wins + self.losses + self.ties

    @property
    def rate(self) -> float:
        """The share of judgements in which the new model is preferred; a tie is half of one."""
        return (self.wins + self.ties / 2) / self.count if self.count else float("nan")

    @property
    def error(self) -> float:
        """The standard error of `rate`."""
        if not self.count:
            return float("nan")
        rate = self.rate
        square = (self.wins + self.ties / 4) / self.count - rate**2
        return float(np.sqrt(max(square, 0) / self.count))

    @property
    def better(self) -> bool:
        """Whether the new model is clearly preferred.

        By more than one standard deviation of what two equal models would be judged: where each of
        n choices is as likely as the other, wins less losses vary by the square root of n.
        """
        return self.wins - self.losses > (self.wins + self.losses) ** 0.5

    def __str__(self) -> str:
        if not self.count:
            return "no answers that differ visibly"
        return f"preferred in {self.rate:.0%} ± {LEVEL * self.error:.0%} of {self.count} judgements"


class _Round(small_files.Settings):
    number: int
    wins: int
    losses: int
    ties: int


class _Stored(small_files.Settings):
    """The fields of the file: rounds that are complete, in order."""

    rounds: list[_Round]


@dataclass(frozen=True)
class Outcome:
    """How a run of rounds ended.

    Attributes:
      preferences: of each round that was trained, from the first on.
      best: the round that is kept; 0 is the model that the run began with.
      reason: why no further round was made, as a sentence.
    """

    preferences: tuple[Preference, ...]
    best: int
    reason: str


def run(
    folder: Path,
    train: Callable[[int, int], None],
    compare: Callable[[int, int], Preference],
    most: int,
    report: Callable[[str], None] = print,
) -> Outcome:
    """Rounds until one is not preferred to the best before it, or there have been `most`.

    Rounds that are complete in `folder` are not repeated.

    Args:
      folder: of the run, which keeps how each round was judged in `rounds.json`.
      train: (number of the round, number of the best before it): asks, trains and keeps the model
        of the round; may raise to stop here and go on from this round later.
      compare: (number of the round, number of the best before it) → held-out judgements.

    Raises:
      RoundsError: `rounds.json` is damaged.
      ValueError: `most` is below 1.
      and whatever `train` and `compare` raise.
    """
    if most < 1:
        raise ValueError(f"{most} rounds, expected 1 or more")
    preferences = read(folder)
    best = 0
    for number in range(1, most + 1):
        if len(preferences) < number:
            train(number, best)
            preferences.append(compare(number, best))
            _write(folder, preferences)
        found = preferences[number - 1]
        report(f"round {number} against round {best}: {found}")
        if not found.better:
            kept = "the model that the run began with" if not best else f"round {best}"
            reason = f"Round {number} is not clearly preferred to round {best}: {kept} is kept."
            report(reason)
            return Outcome(tuple(preferences[:number]), best, reason)
        best = number
    reason = f"There were to be at most {most} rounds, and round {best} is kept."
    report(reason)
    return Outcome(tuple(preferences[:most]), best, reason)


def read(folder: Path) -> list[Preference]:
    """How the complete rounds of a run were judged; none where it has not begun.

    Raises:
      RoundsError: the file is damaged; names file and field.
    """
    path = folder / FILE
    if not path.exists():
        return []
    try:
        stored = small_files.checked(_Stored, small_files.read_json(path, RoundsError), RoundsError)
        for number, each in enumerate(stored.rounds, 1):
            if each.number != number:
                raise RoundsError(f"round {number} is missing", field="rounds")
    except RoundsError as error:
        raise error.at(path=path) from None
    return [Preference(each.wins, each.losses, each.ties) for each in stored.rounds]


def _write(folder: Path, preferences: list[Preference]) -> None:
    rounds = [{"number": n, **vars(each)} for n, each in enumerate(preferences, 1)]
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / FILE, json.dumps({"rounds": rounds}, indent=2) + "\n")
