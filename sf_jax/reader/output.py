"""The JSON of an image, of a frame of a video, and of an answer of the service.

Live Link CSV is written by `sf_jax.face.livelink`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from sf_jax.face.channels import INDEX, NAMES
from sf_jax.face.describe import Description
from sf_jax.face.landmarks import Square
from sf_jax.reader.action import Face, FaceAction, Provenance, Uncorrected, Values, named

if TYPE_CHECKING:  # it brings the face finder, which a client does not need
    from sf_jax.reader.session import Frame

NUMBERS = ("coefficients", "answer", "spread", "entropy", "log_likelihood")  # of each channel


def as_json(frame: "Frame", source: str) -> dict[str, Any]:
    """Everything known of one picture.

    The coefficients are exact, all else is rounded. "coefficients" are the values asked for: slot
    means or generated values, relative to a neutral face where one was given, and "rationale" is
    of these values; what the model generated of the uncorrected face is then under "uncorrected".
    "mean", "answer" and "spread" are the model's own, untouched, and "agreement" is that of its own
    rationale with its generated values. Channels that the model does not read are left out
    everywhere. "face" is where the face was read, null where the whole image was,
    or where none was found: "found" is then false, and all values are null. A face that is tilted
    is read in a turned square; where that changed the rationale, or an angle of the head as
    spelt, what was generated there is under "uncorrected". "reliability", where the model
    directory has it, is the r that each channel was measured with.

    Args:
      source: the picture's path, kept under "image".
    """
    action = frame.action
    own = action.uncorrected or action
    generated: dict[str, Any] = {"text": action.text, "agreement": agreement_json(action)}
    if frame.corrected:
        generated = {"uncorrected": {"rationale": rationale_json(own.rationale), **generated}}
        generated["uncorrected"]["text"] = own.text
    elif action.uncorrected:
        generated["uncorrected"] = {"rationale": rationale_json(own.rationale), "text": own.text}

    def rounded(values: Values) -> Named:
        return _rounded(values, action)

    return {
        "image": source,
        **_made_with(action),
        **face_json(action),
        "rationale": rationale_json(frame.rationale),
        **generated,
        "coefficients": _exact(frame.values, action),
        "mean": rounded(action.coefficients),
        "answer": rounded(action.answer),
        "spread": rounded(action.spread),
        "entropy": rounded(action.entropy),
        "log_likelihood": rounded(action.log_likelihood),
        "passes": action.passes,
        **_reliability(action),
    }


def _reliability(action: FaceAction) -> dict[str, Any]:
    """The measured r of each channel that was read; nothing where it is not known."""
    found = action.reliability
    return {} if found is None else {"reliability": found.as_json(action.channels)}


def face_json(action: FaceAction) -> dict[str, Any]:
    """Whether anything was read, and where the face is in pixels of the upright image."""
    if action.face is None:
        return {"found": action.found, "face": None}
    box = {name: round(value, 4) for name, value in vars(action.face.box).items()}
    return {"found": True, "face": asdict(action.face) | {"box": box}}


def _made_with(action: FaceAction) -> dict[str, Any]:
    """Version and hashes under "sf_jax"; nothing where they are not known."""
    return {} if action.provenance is None else {"sf_jax": action.provenance.as_json()}


def frame_json(frame: "Frame", seconds: float) -> dict[str, Any]:
    """What one frame of a video shows; `seconds` from the first frame."""
    action = frame.action
    return {
        "frame": frame.number,
        "seconds": round(seconds, 6),
        **face_json(action),
        "change": frame.change,
        **_made_with(action),
        "rationale": rationale_json(frame.rationale),
        "coefficients": _exact(frame.values, action),
        "agreement": agreement_json(action),
        "answer": _rounded(action.answer, action),
        "spread": _rounded(action.spread, action),
    }


Named = dict[str, float | None]  # channel → value, None where no face was found


def _rounded(values: Values, action: FaceAction) -> Named:
    return {name: value and round(value, 4) for name, value in known(values, action).items()}


def _exact(values: Values, action: FaceAction) -> Named:
    """The shortest decimals that give the same float32 again."""
    named = known(values, action).items()
    return {name: value and float(str(np.float32(value))) for name, value in named}


def known(values: Values, action: FaceAction) -> Named:
    """Channel name → value of the channels that an answer holds; None where no face was found."""
    if not action.found:
        return dict.fromkeys(action.channels)
    return {**named(values, action.channels)}


def rationale_json(rationale: Description) -> dict[str, str]:
    """The four fields."""
    return {
        "expression": rationale.expression,
        "movements": rationale.movements,
        "emotion": rationale.emotion,
        "symmetry": rationale.symmetry,
    }


def agreement_json(action: FaceAction) -> dict[str, Any] | None:
    """How far the generated rationale agrees with "answer"; None where it cannot be compared."""
    found = action.agreement
    return None if found is None else found.as_json()


def exact_json(action: FaceAction) -> dict[str, Any]:
    """An answer from which `from_json` makes the same `FaceAction` again, to the last bit."""
    numbers = {field: known(getattr(action, field), action) for field in NUMBERS}
    own = action.uncorrected
    return {
        **_made_with(action),
        "status": "read" if action.found else "no face",
        "face": None if action.face is None else asdict(action.face),
        "rationale": rationale_json(action.rationale),
        "text": action.text,
        "agreement": agreement_json(action),
        "channels": list(action.channels),
        **numbers,
        "passes": action.passes,
        "rationale_ids": action.rationale_ids.tolist(),
        "rationale_log_probabilities": [*map(float, action.rationale_log_probabilities)],
        "uncorrected": None
        if own is None
        else {
            "rationale": rationale_json(own.rationale),
            "text": own.text,
            "answer": known(own.answer, action),
        },
    }


def _ids_key(content: Mapping[str, Any]) -> str:
    """The key of the rationale's tokens, "words" in answers of before."""
    return "words" if "words" in content and "rationale_ids" not in content else "rationale_ids"


def unnamed(content: Mapping[str, float | None], read: Sequence[str]) -> Values:
    """The values of the channels that were read; NaN for the others, and for null.

    Raises:
      KeyError: a channel is missing, or is none.
    """
    values = np.full(len(NAMES), np.nan, np.float32)
    for name in read:
        value = content[name]
        values[INDEX[name]] = np.nan if value is None else float(value)
    return values


def _face(content: Mapping[str, Any] | None) -> Face | None:
    if content is None:
        return None
    fields = {**content, "box": Square(**content["box"]), "image": tuple(content["image"])}
    return Face(**fields)


def _uncorrected(content: Mapping[str, Any] | None, read: Sequence[str]) -> Uncorrected | None:
    if content is None:
        return None
    answer = unnamed(content["answer"], read)
    return Uncorrected(Description(**content["rationale"]), str(content["text"]), answer)


def from_json(content: Mapping[str, Any]) -> FaceAction:
    """The answer that `exact_json` wrote.

    Raises:
      ValueError: a field or a channel is missing or of another kind; says which.
    """
    try:
        read = content.get("channels", NAMES)  # services of before read all of them
        numbers: dict[str, Any] = {field: unnamed(content[field], read) for field in NUMBERS}
        return FaceAction(
            rationale=Description(**content["rationale"]),
            text=str(content["text"]),
            passes=dict(content["passes"]),
            rationale_ids=np.array(content[_ids_key(content)], np.int32),
            rationale_log_probabilities=np.array(
                content.get("rationale_log_probabilities", ()), np.float32
            ),
            channels=tuple(read),
            provenance=Provenance(**content["sf_jax"]) if "sf_jax" in content else None,
            face=_face(content.get("face")),
            uncorrected=_uncorrected(content.get("uncorrected"), read),
            **numbers,
        )
    except KeyError as error:
        raise ValueError(f"the answer lacks {error}") from error
    except TypeError as error:
        raise ValueError(f"no answer of this service: {error}") from error
