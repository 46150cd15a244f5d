"""The model card and the reliability of a model directory, from what `sf-jax evaluate` found."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from sf_jax.face.channels import NAMES
from sf_jax.media import files, small_files
from sf_jax.media.errors import DataError
from sf_jax.reader import finder, readout, reliability
from sf_jax.reader.reliability import LEAST, Channel, Stored

FILE = "MODEL_CARD.md"
FRAMING = (finder.FILE, readout.FILE)  # by which a directory's model frames faces
BASELINES = ("zeros", "mean", "median")
Measures = dict[str, float | None]


class CardError(DataError):
    """An evaluation that cannot be read, or is of other weights."""


class _Interval(small_files.Settings):
    low: float | None
    high: float | None


class _Measured(small_files.Settings):
    r: float | None
    faces: int


class _Scores(small_files.Settings):
    all: Measures
    intervals: dict[str, _Interval]
    channels: dict[str, _Measured]
    constant_labels: list[str] = Field(
        default_factory=list
    )  # counted as r = 0, which measures nothing


class _Coverage(small_files.Settings):
    all: float | None
    active: float | None


class _Agreement(small_files.Settings):
    exact: float | None
    within_one: float | None


class MeasuredSet(small_files.Settings):
    """One set of an evaluation."""

    faces: int
    people: int
    found: int | None
    scores: dict[str, _Scores]
    agreement: _Agreement | None
    coverage: _Coverage | None


class _Made(small_files.Settings):
    version: str
    weights: str | None = None
    adapter: str | None = None


class Evaluation(small_files.Settings):
    """The fields of evaluation.json that a card needs."""

    sf_jax: _Made
    device: str
    framed: bool
    read_out: str
    sets: dict[str, MeasuredSet] = Field(min_length=1)


def read_evaluation(path: Path) -> Evaluation:
    """What `sf-jax evaluate --out` wrote.

    Raises:
      CardError: the file is another or damaged; names the field.
    """
    try:
        found = small_files.checked(Evaluation, small_files.read_json(path, CardError), CardError)
    except CardError as error:
        raise error.at(path=path) from None
    for name, each in found.sets.items():
        if found.read_out not in each.scores:
            problem = f"set {name!r} has no scores of {found.read_out!r}"
            raise CardError(problem, path=path, field="sets")
    if found.sf_jax.adapter is not None:
        raise CardError("is of a model with an adapter, which has no directory", path=path)
    return found


def channels_of(evaluation: Evaluation) -> Stored:
    """The reliability of each channel over the sets; unknown where its label is always the same."""
    by_set = {
        name: _channels_of_set(each.scores[evaluation.read_out])
        for name, each in evaluation.sets.items()
    }
    return reliability.merged(by_set, evaluation.sf_jax.weights, evaluation.read_out)


def _channels_of_set(scores: _Scores) -> dict[str, Channel]:
    constant = set(scores.constant_labels)
    return {
        name: Channel(r=None if name in constant else one.r, faces=one.faces)
        for name, one in scores.channels.items()
    }


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _set_row(name: str, each: MeasuredSet, read_out: str) -> list[str]:
    own = each.scores[read_out]
    interval = own.intervals.get("r_52")
    baselines = [
        _number(each.scores[base].all.get("mae_52")) if base in each.scores else "–"
        for base in BASELINES
    ]
    spread = each.coverage
    return [
        name,
        str(each.faces),
        str(each.people),
        "–" if each.found is None else str(each.found),
        _number(own.all.get("r_52")),
        "–" if interval is None else f"{_number(interval.low)} to {_number(interval.high)}",
        _number(own.all.get("mae_52")),
        *baselines,
        _number(own.all.get("active_mae")),
        _number(own.all.get("head_degrees"), 2),
        "–" if each.agreement is None else _number(each.agreement.exact),
        "–" if spread is None else f"{_number(spread.all, 2)}, {_number(spread.active, 2)}",
    ]


def _figures(evaluation: Evaluation) -> list[str]:
    headings = [
        "set", "faces", "people", "found", "r (52)", "95 % interval", "MAE (52)",
        *(f"MAE of {name}" for name in BASELINES), "active MAE", "head °",
        "levels of the rationale agree", "within the central 80 %: all, active",
    ]  # fmt: skip
    how = "Faces are found and framed first; a missed one counts as zeros."
    return [
        f"Measured with `sf-jax evaluate`, version {evaluation.sf_jax.version}, on "
        f"{evaluation.device}. Read-out: {evaluation.read_out}. "
        + (how if evaluation.framed else "Images are read whole."),
        "Nothing of these sets was trained on, as far as the sets are those of `sf-jax data sets`. "
        "Intervals are by bootstrap over people.",
        "",
        *_table(
            headings,
            [_set_row(name, each, evaluation.read_out) for name, each in evaluation.sets.items()],
        ),
    ]


def _channel_lines(evaluation: Evaluation, stored: Stored) -> list[str]:
    names = list(evaluation.sets)
    rows = []
    for name in NAMES:
        cells = []
        for each in evaluation.sets.values():
            scores = each.scores[evaluation.read_out]
            found = scores.channels.get(name)
            known = found is not None and found.faces and name not in scores.constant_labels
            cells.append(_number(found.r, 2) if found is not None and known else "–")
        own = stored.channels[name]
        rows.append([name, _number(own.r, 2), str(own.faces), *cells])
    return _table(["channel", "r", "faces", *names], rows)


def _limits(stored: Stored, given: str | None) -> list[str]:
    weak = [name for name, one in stored.channels.items() if one.r is not None and one.r < LEAST]
    unmeasured = [name for name, one in stored.channels.items() if one.r is None]
    lines = []
    if weak:
        lines += [f"- Cannot be read (r below {LEAST} over the sets): {', '.join(weak)}."]
    if unmeasured:
        lines += [f"- Not measured: {', '.join(unmeasured)}."]
    lines += [
        "- Labels are those of renders and drawings. Of photographs of people no coefficients are "
        "known, so no figure here is of photographs.",
        "- Figures are means over the faces of a set: a single answer may be far off. Its spread "
        "says how far, as far as the share within the central 80 % is near 0.8.",
        "- Not made for identifying people, nor for judging what they feel or are: an emotion in a "
        "rationale is a description of muscle movements.",
    ]
    return [*lines, *([given.strip()] if given else [])]


def card(
    name: str, evaluation: Evaluation, data: str | None = None, limits: str | None = None
) -> str:
    """The card as Markdown.

    Args:
      data: what the model was trained on, under which licences; limits: further ones. Markdown.
    """
    stored = channels_of(evaluation)
    weights = evaluation.sf_jax.weights or "no checksum"
    return "\n".join(
        [
            f"# Model card: {name}",
            "",
            "An image of a face → a rationale in words and coefficients of "
            f"{len(NAMES)} channels (52 ARKit blendshapes and nine angles). Weights: `{weights}`.",
            "",
            "## Data and licences",
            "",
            data.strip() if data else "Not stated.",
            "",
            "## Figures",
            "",
            *_figures(evaluation),
            "",
            "## Channels",
            "",
            "Pearson's r of coefficient and label; the first column is the mean over the sets. "
            f"`sf-jax predict` marks those below {LEAST}.",
            "",
            *_channel_lines(evaluation, stored),
            "",
            "## Limits",
            "",
            *_limits(stored, limits),
            "",
        ]
    )


def write(
    folder: Path,
    evaluation: Evaluation,
    weights: str | None,
    texts: Mapping[str, str | None],
) -> list[Path]:
    """Writes card and reliability into a model directory, over those of before.

    Args:
      weights: hash of the directory's weights, where it is known.
      texts: "data" and "limits", see `card`.

    Raises:
      CardError: the evaluation is of other weights, or read whole images though the model frames
        faces, which is not how `predict` reads them.
    """
    measured = evaluation.sf_jax.weights
    if None not in (weights, measured) and weights != measured:
        problem = f"the evaluation is of weights {measured}, not of {weights}"
        raise CardError(problem, path=folder, field="sf_jax.weights")
    if not evaluation.framed and all((folder / name).is_file() for name in FRAMING):
        problem = "the evaluation was made with --whole, and the model frames faces; evaluate it so"
        raise CardError(problem, path=folder, field="framed")
    paths = [folder / FILE, folder / reliability.FILE]
    files.write_text(paths[0], card(folder.resolve().name, evaluation, **texts))
    files.write_json(paths[1], channels_of(evaluation).model_dump())
    return paths
