"""The roll of the square that a face was read in, as part of the answer."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from sf_jax.decode.schema import Schema
from sf_jax.face.describe import Description
from sf_jax.face.head_angles import HEAD, turn_image, turn_spread
from sf_jax.face.head_clauses import NOTHING, with_head
from sf_jax.reader.action import Face, FaceAction, Uncorrected, Values


def reads_head(indices: Int[np.ndarray, " C"]) -> bool:
    """Whether all three angles of the head are among the channels of a schema: without them a roll
    cannot be put back, and faces are read in upright squares."""
    return set(HEAD) <= set(indices.tolist())


def of_face(
    action: FaceAction, face: Face, schema: Schema, indices: Int[np.ndarray, " C"]
) -> FaceAction:
    """An answer to the square of a face as one to its image: the square's roll goes to the head.

    The rationale's clauses on the head are rewritten where the level of a generated angle changes.

    Args:
      indices: the channel of each slot of the schema.
    """
    roll = face.box.roll
    if not roll:
        return replace(action, face=face)
    answer = on_grid(turn_image(action.answer, roll), schema, indices)
    rationale = with_head(action.rationale, action.answer[HEAD], answer[HEAD])
    text = _replaced(action, rationale, answer, schema, indices)
    return replace(
        action,
        coefficients=turn_image(action.coefficients, roll),
        spread=turn_spread(action.coefficients, action.spread, roll),
        answer=answer,
        rationale=rationale,
        text=text,
        face=face,
        uncorrected=None
        if text == action.text and rationale == action.rationale
        else Uncorrected(action.rationale, action.text, action.answer),
    )


def on_grid(values: Values, schema: Schema, indices: Int[np.ndarray, " C"]) -> Values:
    """Values with the head's angles as near as a schema can spell them."""
    out = np.array(values, np.float32)
    for slot in np.flatnonzero(np.isin(indices, HEAD)):
        at = indices[slot]
        spelt = np.array(schema.values(int(slot)), np.float32)
        out[at] = spelt[np.abs(spelt - out[at]).argmin()]
    return out


def _replaced(
    action: FaceAction,
    rationale: Description,
    answer: Values,
    schema: Schema,
    indices: Int[np.ndarray, " C"],
) -> str:
    """The text of an answer with other values and another rationale, in the same order."""
    block = schema.format(action.answer[indices]), schema.format(answer[indices])
    text = action.text.replace(*block)
    generated = action.text.replace(block[0], "").strip()
    if generated and rationale != action.rationale:
        text = text.replace(generated, rationale_text(rationale))
    return text


def rationale_text(rationale: Description) -> str:
    """The text of a rationale, "" of an empty one."""
    return rationale.text if any(vars(rationale).values()) else ""


def in_square(
    answer: Float[np.ndarray, "61"], rationale: str | None, roll: float
) -> tuple[Float[np.ndarray, "61"], str | None]:
    """The inverse of `of_face`: an answer about a face in an image, as one to a turned square.

    Raises:
      ValueError: the head has another level there, and the rationale is not in the describer's
        language, so that no rule can decide how it would be worded.
    """
    turned = turn_image(answer, -roll)
    if not rationale or not roll:
        return turned, rationale
    parsed = Description.parse(rationale)
    changed = with_head(parsed, answer[HEAD], turned[HEAD])
    if changed == NOTHING != parsed:
        raise ValueError(
            "the face was read in a turned square, in which the head has other angles; a rationale "
            "in free words is scored as generated there, see FaceAction.uncorrected, or whole=True"
        )
    return turned, rationale if changed == parsed else rationale_text(changed)
