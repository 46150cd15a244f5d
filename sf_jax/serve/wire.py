"""What goes over the wire: query parameters, bodies and replies, as the OpenAPI page shows them."""

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sf_jax.decode.limits import MOST_TEMPERATURE, SEEDS
from sf_jax.media import small_files
from sf_jax.media.errors import DataError
from sf_jax.media.video_times import MAX_FPS, MIN_FPS
from sf_jax.reader.framing import Which
from sf_jax.reader.output import exact_json, known, rationale_json
from sf_jax.reader.session import Frame, SessionOptions

if TYPE_CHECKING:
    from sf_jax.reader.action import FaceAction
    from sf_jax.reader.question import Messages

ENVELOPE = 2  # commas and opening brackets of a JSON body outside its messages
SESSION_NAME = r"^[A-Za-z0-9._-]{1,64}$"
FACE = r"^(largest|all|[1-9][0-9]{0,3})$"
RENAMED = {"words": "rationale", "max_words": "max_rationale"}  # parameters of before
OF_SESSIONS = ("values", "smooth", "fps", "seconds", "neutral")  # parameters


State = Literal["starting", "warming up", "ready", "busy", "failing", "draining"]


class WireError(DataError):
    """A request that cannot be understood; names the field."""

    FIELD = "{}"


class Refusal(Exception):
    """A request that is not answered: an HTTP status and the reason."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None):
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


class Asked(BaseModel):
    """Query parameters of a request."""

    model_config = ConfigDict(extra="forbid")  # a misspelt one is refused, not passed over
    rationale: bool = Field(True, description="generate the rationale too")
    temperature: float = Field(0.0, ge=0, le=MOST_TEMPERATURE, description="0 samples nothing")
    seed: int = Field(0, ge=0, lt=SEEDS, description="of sampling at a temperature above 0")
    max_rationale: int | None = Field(
        None, description="cap on the rationale in tokens, one of those that the server offers"
    )
    whole: bool | None = Field(
        None,
        description="read the whole image, or find the face and read the square around it; by "
        "default what the model was trained for",
    )
    crop: bool | None = Field(None, description="the opposite of `whole`, which it is short for")
    face: str = Field(
        "largest",
        pattern=FACE,
        description='which face: "largest", its number from the left, from 1, or "all", each of '
        "which has an answer. A session keeps to the one that it begins with",
    )
    force: bool = Field(
        False, description="read the whole image where no face is found; see `status`"
    )
    session: str | None = Field(
        None,
        pattern=SESSION_NAME,
        description="a name of the client's choice: the image is the next frame of this session",
    )
    values: Literal["mean", "answer"] | None = Field(None, description="of `frame.values`")
    smooth: bool | None = Field(None, description="one-euro filter over `frame.values`")
    fps: float | None = Field(
        None, ge=MIN_FPS, le=MAX_FPS, description="frames a second, for the filter"
    )
    seconds: float | None = Field(
        None, allow_inf_nan=False, description="the frame's time, in place of `fps`"
    )
    neutral: bool | None = Field(
        None, description="this frame shows the person at rest: later values are relative to it"
    )

    def session_options(self) -> SessionOptions | None:
        """How the session's frames are to be read, None where the request does not say.

        Raises:
          WireError: a parameter of sessions is given without a session.
        """
        if self.session is None:
            stray = [name for name in OF_SESSIONS if getattr(self, name) is not None]
            if stray:
                raise WireError("belongs to a session; name one with session=…", field=stray[0])
            return None
        given = {name: getattr(self, name) for name in ("values", "smooth", "fps")}
        given = {name: value for name, value in given.items() if value is not None}
        if self.every:
            raise WireError("a session is of one face; name it by its number", field="face")
        given |= {
            name: value for name, value in self.face_options().items() if name in self._given()
        }
        return SessionOptions(**given) if given else None

    def face_options(self) -> dict[str, Any]:
        """What is read of an image: the arguments `whole`, `face` and `force` of `Model.predict`.

        Raises:
          WireError: they contradict each other.
        """
        whole = self.whole if self.crop is None else not self.crop
        if self.crop is not None and self.whole not in (None, whole):
            raise WireError("says the opposite of whole", field="crop")
        for name, given in (("face", self.face != "largest"), ("force", self.force)):
            if whole and given:
                raise WireError("is for faces that are found", field=name)
        if self.every and self.force:
            raise WireError("is for one face; all that are found are read", field="force")
        face: Which = int(self.face) if self.face.isdecimal() else "largest"
        return {"whole": whole, "face": face, "force": self.force}

    @property
    def every(self) -> bool:
        """Whether all faces are to be read."""
        return self.face == "all"

    def _given(self) -> set[str]:
        """The fields that the request has, `crop` as `whole`."""
        return self.model_fields_set | ({"whole"} if self.crop is not None else set())


class Rationale(BaseModel):
    """The rationale, in four fields."""

    expression: str
    movements: str
    emotion: str
    symmetry: str


class Agreement(BaseModel):
    """Whether the levels that the rationale mentions are those of the generated values."""

    mentions: int = Field(description="channels that the rationale mentions at a level")
    exact: int = Field(description="mentions whose value has that level")
    within_one: int = Field(description="mentions whose value has that level or the next")
    missing: int = Field(description="values of level 2 or 3 that are not mentioned")
    emotion: bool = Field(description="whether the values support the emotion")


class Box(BaseModel):
    """A square in an image, in pixels; it may be turned, and reach beyond the image."""

    x: float = Field(description="of its centre, from the left")
    y: float = Field(description="of its centre, from the top")
    side: float
    roll: float = Field(
        description="radians by which it is turned with the head, counter-clockwise as the image "
        "is seen"
    )


class FoundFace(BaseModel):
    """Where a face was found."""

    box: Box = Field(description="the square that was read")
    score: float = Field(description="of the finder, from 0 to 1")
    number: int = Field(description="among the faces of the image, from the left, from 1")
    count: int = Field(description="how many faces were found")
    image: tuple[int, int] = Field(
        description="width and height of the image in these pixels: a large one is shrunk first"
    )


class Generated(BaseModel):
    """What the model generated of a face in a turned square."""

    rationale: Rationale
    text: str
    answer: dict[str, float | None]


class Answer(BaseModel):
    """What one image shows: channel name → value, of all channels that the model reads. The
    floats are float32, unrounded. All values are null where no face was found."""

    status: Literal["read", "no face"] = Field(
        description="no face: the image holds none, or not the one asked for; an answer all the "
        "same (200), with null for every value and for `face`, and an empty rationale"
    )
    face: FoundFace | None = Field(
        description="the face that was read; null where the whole image was, or none was found"
    )
    sf_jax: dict[str, str] = Field(description="version, and hashes of the weights")
    rationale: Rationale
    text: str = Field(description="the answer as generated, rationale and JSON")
    agreement: Agreement | None = Field(
        description="of the generated rationale with `answer`; null where it cannot be compared"
    )
    channels: list[str] = Field(description="those that the model reads, in canonical order")
    coefficients: dict[str, float | None] = Field(
        description="the mean of each channel's distribution"
    )
    answer: dict[str, float | None] = Field(description="the generated value")
    spread: dict[str, float | None] = Field(description="the distribution's standard deviation")
    entropy: dict[str, float | None] = Field(description="the distribution's entropy in nats")
    log_likelihood: dict[str, float | None] = Field(description="of the generated value")
    passes: dict[str, int] = Field(description="model passes spent")
    rationale_ids: list[int] = Field(description="the rationale as the model's tokens")
    rationale_log_probabilities: list[float] = Field(
        description="of each of these tokens and of the end, in nats"
    )
    uncorrected: Generated | None = Field(
        description="what was generated, where the roll of the square that was read has changed "
        "the head's angles as spelt, or the rationale; else null"
    )


class FaceAnswers(BaseModel):
    """What all faces of an image show."""

    status: Literal["read", "no face"]
    faces: list[Answer] = Field(
        description="from left to right; the largest ones where there are very many, and empty "
        "where there is none"
    )


class FrameOf(BaseModel):
    """The image as a frame of its session."""

    session: str
    number: int = Field(description="how many frames of the session came before it")
    found: bool = Field(description="whether a face was found, true where none was searched for")
    change: Literal["cut", "another face"] | None = Field(
        description="what has changed with this frame: the image cuts, or the face is another one"
    )
    values: dict[str, float | None] = Field(
        description="of each channel: mean or answer as asked, less the neutral face, smoothed"
    )
    rationale: Rationale = Field(
        description="of the values; empty where they are relative to a neutral face and the "
        "model's own rationale is not in the describer's language"
    )


class FrameAnswer(Answer):
    """What a frame of a session shows."""

    frame: FrameOf


class Error(BaseModel):
    """Why a request was not answered."""

    error: str


class Health(BaseModel):
    """What the service is doing."""

    status: State = Field(
        description="starting: no program is compiled yet; warming up: single images are answered, "
        "other programs are still being compiled; ready; busy: as many requests are held as there "
        "is room for; failing: see problems; draining: it is ending"
    )
    problems: list[str] = Field(description="what keeps requests from being answered")
    held: int = Field(description="requests being read, waiting or being answered")
    waiting: int = Field(description="of these, images that wait for a batch")
    answered: int = Field(description="images answered since the start")
    batches: int = Field(description="batches they were answered in")
    sessions: int = Field(description="sessions that are open")
    sf_jax: dict[str, str] = Field(description="version, and hashes of the weights")
    decoders: int = Field(description="processes that decode images and are there")
    killed: int = Field(description="of these, how many had to be killed since the start")


REFUSALS: dict[int | str, dict[str, Any]] = {
    408: {"model": Error, "description": "the body came too slowly"},
    413: {"model": Error, "description": "too many bytes or pixels"},
    409: {"model": Error, "description": "the session began with other options"},
    415: {"model": Error, "description": "a form in place of an image"},
    422: {"model": Error, "description": "no readable image, or an option that is not offered"},
    503: {"model": Error, "description": "busy, starting, failing or ending; see Retry-After"},
    504: {"model": Error, "description": "no answer within the time limit"},
}
BODY = {
    "required": True,
    "description": "the bytes of an image file: JPEG, PNG, WebP, TIFF and others; or these in "
    "base64 together with the conversation to answer, for models that are instructed",
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "additionalProperties": False,
                "properties": {
                    "image": {"type": "string", "contentEncoding": "base64"},
                    "messages": {"type": "array", "items": {"type": "object"}},
                },
            }
        },
    },
}


def read_json_body(body: bytes, most: int) -> tuple[bytes, "Messages | None"]:
    """The image file's bytes and the messages of a JSON body.

    Args:
      most: bytes of messages. A body with more commas and opening brackets than so many bytes can
        hold is refused unparsed: parsing many small values takes a hundred times as long as an
        image in base64.

    Raises:
      WireError: it is no such object; names the field.
    """
    if sum(map(body.count, (b",", b"{", b"["))) > most + ENVELOPE:
        raise WireError(f"too many values for messages of at most {most:,} bytes", field="messages")
    try:
        content = small_files.parse_json(body)
    except DataError as error:
        raise WireError(f"the body: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("image"), str):
        raise WireError(
            'image: expected {"image": the image file in base64, "messages": […]}', field="image"
        )
    unknown = min(content.keys() - {"image", "messages"}, default=None)
    if unknown is not None:
        raise WireError("no field of the body; there are image, messages", field=unknown)
    messages = content.get("messages")
    if messages is not None and not (
        isinstance(messages, list) and all(isinstance(one, Mapping) for one in messages)
    ):
        raise WireError("expected a list of objects with role and content", field="messages")
    if content["image"].startswith(("data:", "http:", "https:")):
        raise WireError("a URL; send the image file itself in base64", field="image")
    try:
        return base64.b64decode(content["image"], validate=True), messages
    except (binascii.Error, ValueError) as error:
        raise WireError(f"not base64: {error}", field="image") from error


def faces_json(actions: "list[FaceAction]") -> dict[str, Any]:
    """The answers to all faces of an image, as `FaceAnswers` describes it."""
    status = "read" if actions else "no face"
    return {"status": status, "faces": [exact_json(action) for action in actions]}


def frame_json(name: str, frame: Frame) -> dict[str, Any]:
    """A frame's answer, as `FrameAnswer` describes it."""
    own = {"session": name, "number": frame.number, "found": frame.found}
    own["change"] = frame.change
    own["values"] = known(frame.values, frame.action)
    own["rationale"] = rationale_json(frame.rationale)
    return exact_json(frame.action) | {"frame": own}
