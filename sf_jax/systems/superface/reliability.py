"""How far annotators agree, how reliable each is, and which candidates win.

Agreement is Krippendorff's alpha for nominal data (Content Analysis, 2nd edition 2004, chapter 11),
over pairs that several annotators judged. Reliability is the accuracy of Dawid and Skene's model
(Applied Statistics 28, 1979), which estimates the true choice of each pair and how each annotator
errs, by expectation maximisation; the better candidate of gold pairs is given. Only pairs that are
gold or that several annotators judged take part, since others would confirm whoever judged them.
"unclear" counts as no choice, and repeats are compared with the first judgement alone.

Which kinds of candidates win is the model of Bradley and Terry (Biometrika 39, 1952), fitted by
choix.
"""

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from sf_jax.face.channels import NAMES
from sf_jax.face.regions import REGIONS
from sf_jax.systems.superface.pairs import Judgement, Pair

CLASSES = ("first", "second", "tie")
PRIOR = 0.5  # added to each count of a confusion matrix, so that few judgements decide nothing
PENALTY = 0.1  # on squared strengths of Bradley and Terry's, so that one that always wins is finite
HEAD: tuple[str, ...] = (
    *("annotator", "judged", "seconds", "left", "tie", "unclear"),
    *("repeats alike", "gold correct", "agrees", "accuracy"),
)
ROUNDS, TOLERANCE = 200, 1e-7  # of expectation maximisation
SWAPPED = re.compile(f"^swapped (?:{'|'.join(REGIONS)}): ")
CHANGED = re.compile(f"^(perturbed|revived) (?:{'|'.join(NAMES)})$")


@dataclass(frozen=True)
class Share:
    """A part of a number; `value` is NaN where that is 0."""

    part: int
    of: int

    @property
    def value(self) -> float:
        """From 0 to 1."""
        return self.part / self.of if self.of else math.nan

    def __str__(self) -> str:
        return f"{100 * self.value:.0f} % of {self.of}" if self.of else "–"


@dataclass(frozen=True)
class Reliability:
    """One annotator.

    Attributes:
      judgements: how many, repeats included.
      seconds: the median from showing to choice.
      left: of those that preferred a side, the left one; far from a half is a habit.
      ties, unclear: of all.
      consistent: of repeats, those with the same choice as at first.
      gold: of gold pairs, those on which the better candidate was chosen.
      agreeing: of comparisons with others' judgements of the same pairs, those that agree.
      accuracy: chance to give a pair's true choice by Dawid and Skene's model; NaN where there are
        neither gold pairs nor other annotators.
    """

    annotator: str
    judgements: int
    seconds: float
    left: Share
    ties: Share
    unclear: Share
    consistent: Share
    gold: Share
    agreeing: Share
    accuracy: float


@dataclass(frozen=True)
class Report:
    """All annotators of a folder.

    Attributes:
      annotators: by name.
      alpha: Krippendorff's, 1 for perfect agreement and 0 for chance; NaN where no pair was judged
        by two.
      shared: pairs that it rests on.
      strengths: kind of candidate → chance to win against an average one, strongest first; empty
        where choix is not installed or nothing was decided.
    """

    annotators: tuple[Reliability, ...]
    alpha: float
    shared: int
    strengths: Mapping[str, float]

    def lines(self) -> list[str]:
        """The report as a table for a terminal."""
        rows = [HEAD, *map(_row, self.annotators)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        found = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        shared = f"{self.shared} pairs judged by several"
        alpha = "–" if math.isnan(self.alpha) else f"{self.alpha:.2f}"
        found += ["", f"Krippendorff's alpha: {alpha} ({shared})"]
        if self.strengths:
            found += ["", "chance to win against an average candidate (Bradley–Terry):"]
            found += [f"  {value:.2f}  {kind}" for kind, value in self.strengths.items()]
        return found


def _row(one: Reliability) -> tuple[str, ...]:
    def percent(share: Share) -> str:
        return f"{100 * share.value:.0f} %" if share.of else "–"

    accuracy = "–" if math.isnan(one.accuracy) else f"{one.accuracy:.2f}"
    shares = [percent(one.left), percent(one.ties), percent(one.unclear)]
    counted = [str(one.consistent), str(one.gold), str(one.agreeing)]
    seconds = f"{one.seconds:.1f}"
    return (one.annotator, str(one.judgements), seconds, *shares, *counted, accuracy)


def report(judgements: Iterable[Judgement], pairs: Mapping[str, Pair]) -> Report:
    """Agreement and reliability of judgements.

    Args:
      pairs: by key, of all that were judged.
    """
    judgements = list(judgements)
    first = {(one.pair, one.annotator): one for one in judgements if not one.repeat}
    chosen: dict[str, dict[str, int]] = defaultdict(dict)  # pair → annotator → class
    for (pair, annotator), one in first.items():
        if one.choice in CLASSES:
            chosen[pair][annotator] = CLASSES.index(one.choice)
    names = sorted({one.annotator for one in judgements})
    gold = {key: CLASSES.index(side) for key in chosen if (side := pairs[key].gold) is not None}
    accuracies = _accuracies(chosen, gold, names)
    found = tuple(
        _reliability(name, judgements, first, chosen, pairs, accuracies.get(name, math.nan))
        for name in names
    )
    table = [list(by.values()) for by in chosen.values()]
    shared = sum(len(row) > 1 for row in table)
    return Report(found, krippendorff_alpha(table), shared, _strengths(judgements, pairs))


def _reliability(
    name: str,
    judgements: Sequence[Judgement],
    first: Mapping[tuple[str, str], Judgement],
    chosen: Mapping[str, Mapping[str, int]],
    pairs: Mapping[str, Pair],
    accuracy: float,
) -> Reliability:
    own = [one for one in judgements if one.annotator == name]
    sided = [one for one in own if one.choice in ("first", "second")]
    again = [one for one in own if one.repeat and (one.pair, name) in first]
    gold = [one for one in own if pairs[one.pair].gold is not None and not one.repeat]
    compared = [
        by[name] == choice
        for by in chosen.values()
        if name in by
        for other, choice in by.items()
        if other != name
    ]
    return Reliability(
        annotator=name,
        judgements=len(own),
        seconds=statistics.median(one.seconds for one in own),
        left=Share(sum(one.choice == one.left for one in sided), len(sided)),
        ties=Share(sum(one.choice == "tie" for one in own), len(own)),
        unclear=Share(sum(one.choice == "unclear" for one in own), len(own)),
        consistent=Share(
            sum(one.choice == first[one.pair, name].choice for one in again), len(again)
        ),
        gold=Share(sum(one.choice == pairs[one.pair].gold for one in gold), len(gold)),
        agreeing=Share(sum(compared), len(compared)),
        accuracy=accuracy,
    )


def krippendorff_alpha(table: Sequence[Sequence[int]]) -> float:
    """Krippendorff's alpha for nominal data.

    Args:
      table: for each item the classes that annotators gave it, in any order.

    Returns:
      1 for perfect agreement, 0 for that of chance, below 0 for less; NaN where no item has two
      classes, or all classes given are the same.
    """
    rows = [row for row in table if len(row) > 1]
    if not rows:
        return math.nan
    size = max(max(row) for row in rows) + 1
    pairs = np.zeros((size, size))  # coincidences of classes within items
    for row in rows:
        counts = np.bincount(row, minlength=size).astype(float)
        pairs += (np.outer(counts, counts) - np.diag(counts)) / (len(row) - 1)
    totals = pairs.sum(0)
    n = totals.sum()
    expected = n * n - (totals**2).sum()
    return math.nan if not expected else 1 - (n - 1) * (n - np.trace(pairs)) / expected


def dawid_skene(
    items: Int[np.ndarray, " N"],
    annotators: Int[np.ndarray, " N"],
    classes: Int[np.ndarray, " N"],
    known: Mapping[int, int],
    prior: float = PRIOR,
) -> tuple[Float64[np.ndarray, "I C"], Float64[np.ndarray, "A C C"]]:
    """Dawid and Skene's model of N choices by A annotators of C classes for I items.

    Args:
      items, annotators, classes: numbers from 0.
      known: item → its true class, where that is given.
      prior: added to each count of the annotators' confusions; 0 is maximum likelihood.

    Returns:
      The chance of each class to be an item's true one, and for each annotator and true class the
      chance of each class to be chosen.
    """
    shape = (int(items.max()) + 1, max([*classes, *known.values()]) + 1)
    truth = np.zeros(shape)
    np.add.at(truth, (items, classes), 1.0)  # begin with the majority
    truth /= truth.sum(1, keepdims=True)
    fixed = np.array(sorted(known), int)
    given = np.eye(shape[1])[[known[item] for item in fixed]]
    confusions = np.zeros((int(annotators.max()) + 1, shape[1], shape[1]))
    for _ in range(ROUNDS):
        truth[fixed] = given
        counts = np.full_like(confusions, max(prior, 1e-10))
        np.add.at(counts.swapaxes(1, 2), (annotators, classes), truth[items])
        confusions = counts / counts.sum(2, keepdims=True)
        logs = np.tile(np.log(truth.mean(0) + 1e-10), (shape[0], 1))
        np.add.at(logs, items, np.log(confusions[annotators, :, classes]))
        found = np.exp(logs - logs.max(1, keepdims=True))
        found /= found.sum(1, keepdims=True)
        found[fixed] = given
        change, truth = np.abs(found - truth).max(), found
        if change < TOLERANCE:
            break
    return truth, confusions


def _accuracies(
    chosen: Mapping[str, Mapping[str, int]], known: Mapping[str, int], names: Sequence[str]
) -> dict[str, float]:
    """The accuracy of each annotator who judged a gold pair or one that others judged too."""
    shared = [key for key, by in chosen.items() if len(by) > 1 or (by and key in known)]
    rows = [
        (item, names.index(name), choice)
        for item, key in enumerate(shared)
        for name, choice in chosen[key].items()
    ]
    if not rows:
        return {}
    items, annotators, classes = np.array(rows).T
    fixed = {item: known[key] for item, key in enumerate(shared) if key in known}
    truth, confusions = dawid_skene(items, annotators, classes, fixed)
    size = truth.shape[1]
    correct = confusions[:, range(size), range(size)] @ truth.mean(0)
    return {names[i]: float(correct[i]) for i in sorted(set(annotators.tolist()))}


def kind_of(origin: str) -> str:
    """The kind of a candidate: where the region that is judged is from, for all regions alike.

    Of "swapped lower: perturbed JawOpen" it is "perturbed"; see `candidates` about origins.
    """
    return CHANGED.sub(r"\1", SWAPPED.sub("", origin))


def _strengths(judgements: Iterable[Judgement], pairs: Mapping[str, Pair]) -> dict[str, float]:
    """Kind of candidate → chance to win against an average one; a tie is half a win for each."""
    wins: list[tuple[str, str]] = []
    for one in judgements:
        pair = pairs[one.pair]
        kinds = kind_of(pair.first.origin), kind_of(pair.second.origin)
        if kinds[0] == kinds[1] or pair.gold is not None or one.repeat:
            continue
        if one.choice != "second" and one.choice != "unclear":
            wins += [kinds] * (1 if one.choice == "tie" else 2)
        if one.choice != "first" and one.choice != "unclear":
            wins += [kinds[::-1]] * (1 if one.choice == "tie" else 2)
    if not wins:
        return {}
    try:
        import choix  # late: it imports SciPy's optimisers, and is an extra
    except ModuleNotFoundError:
        return {}
    names = sorted({kind for pair in wins for kind in pair})
    number = {kind: i for i, kind in enumerate(names)}
    data = [(number[winner], number[loser]) for winner, loser in wins]
    found = choix.opt_pairwise(len(names), data, alpha=PENALTY)
    chances = 1 / (1 + np.exp(-(found - found.mean())))
    order = sorted(range(len(names)), key=lambda i: -chances[i])
    return {names[i]: float(chances[i]) for i in order}
