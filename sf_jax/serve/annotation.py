"""The page on which people judge pairs of rendered faces: an ASGI app for `sf-jax annotate`.

    GET  /                     the page, annotation.html, which needs nothing from elsewhere
    GET  /api/settings         whose judgements are taken, and what the folder holds
    GET  /api/tasks            an annotator's next tasks and progress
    POST /api/judgements       stores a judgement; answers as /api/tasks
    POST /api/undo             opens the task of a judgement again; answers as /api/tasks
    GET  /images/…, /renders/… the images of the pairs

Writes carry ids that the page chose, so that each may be sent again. The page learns of a task what
it shows: not which candidate is which, where they are from, or whether it is gold or a repeat.

A request that is not answered gets `{"error": reason}`.
"""

import ipaddress
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import xxhash
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from sf_jax.face.regions import Region
from sf_jax.media.errors import DataError, printable
from sf_jax.systems.superface.database import DiskError, StoreError
from sf_jax.systems.superface.folder import IMAGES, RENDERS
from sf_jax.systems.superface.pairs import SIDES, Choice, Pair
from sf_jax.systems.superface.queues import Queues
from sf_jax.systems.superface.store import (
    JudgedError,
    JudgementStore,
    Task,
    UnknownTaskError,
    annotator_name,
)

PAGE = Path(__file__).with_name("annotation.html")
MOST_BYTES = 10_000  # of the body of a request
MOST_TASKS = 100  # that a request may ask for
NAMED = 3  # files that are missing or damaged, named in one answer
MOST_NUMBER = 2**62  # of a task; SQLite's integers have 64 bits
HEADERS = {
    # The page's own style and script are part of it; nothing else is loaded or sent anywhere.
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

Shown = Literal["left", "right", "tie", "unclear"]
FileState = tuple[int, int, int]


class Body(BaseModel):
    """Fields of a request's JSON."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    id: str = Field(description="of the judgement, chosen by the page")
    annotator: str
    count: int = Field(default=1, ge=1, le=MOST_TASKS, description="tasks in the answer, at most")


class JudgementBody(Body):
    """A judgement as the page sends it."""

    number: int = Field(ge=0, le=MOST_NUMBER)
    token: str = Field(description="of the task, so that a number never means another pair")
    choice: Shown
    seconds: float


class TaskShown(BaseModel):
    """What the page shows of a task: paths of images, and the region that is judged."""

    number: int
    token: str
    region: Region
    image: str
    left: str
    right: str


class State(BaseModel):
    """Where an annotator stands.

    `last` is the id of the judgement that undoing concerns; `problems` name what cannot be shown.
    """

    annotator: str
    judged: int
    remaining: int
    last: str | None
    tasks: list[TaskShown]
    problems: list[str]


class Annotation:
    """The judgements of one folder, as the page asks for and gives them."""

    def __init__(self, store: JudgementStore, queues: Queues, annotator: str | None = None):
        """
        Args:
          annotator: whose judgements alone are taken; None takes everyone's.
        """
        self.annotator = None if annotator is None else annotator_name(annotator)
        self._store, self._queues = store, queues
        self._named: set[str] = set()  # problems that were printed
        self._read: dict[Path, tuple[FileState, str | None]] = {}  # what is wrong with files
        folder = store.folder
        self.files = {
            str(path.relative_to(folder.path)): path
            for pair in folder.pairs
            for path in (
                folder.image_path(pair),
                *(folder.render_path(pair, side) for side in SIDES),
            )
        }

    def state(self, annotator: str, count: int) -> State:
        """An annotator's progress and next tasks whose images are sound, at most `count`.

        Raises:
          StoreError: it is no name or another's, or the database fails.
        """
        annotator = self.checked(annotator)
        found: dict[Path, str | None] = {}  # files, each checked once for all pairs that show it
        tasks = self._queues.upcoming(annotator, count, partial(self._sound, found))
        last = self._store.last(annotator)
        return State(
            annotator=annotator,
            judged=self._store.count(annotator),
            remaining=self._queues.remaining(annotator),
            last=None if last is None else last.id,
            tasks=[self._shown(task) for task in tasks],
            problems=self._problems([fault for fault in found.values() if fault is not None]),
        )

    def judge(self, body: JudgementBody) -> State:
        """Stores a judgement; see `JudgementStore.judge` about errors."""
        annotator = self.checked(body.annotator)
        task = self._store.task(annotator, body.number)
        if _token(task) != body.token:
            problem = "the task is of another folder of pairs; reload the page"
            raise UnknownTaskError(problem, field="token")
        choice = _choice(body.choice, task)
        self._store.judge(body.id, annotator, body.number, choice, body.seconds)
        return self.state(annotator, body.count)

    def undo(self, body: Body) -> State:
        """Opens the task of a judgement again; see `JudgementStore.undo` about errors."""
        annotator = self.checked(body.annotator)
        self._store.undo(annotator, body.id)
        return self.state(annotator, body.count)

    def checked(self, annotator: str) -> str:
        """The name of an annotator whose judgements are taken.

        Raises:
          StoreError: it is no name, or this page is another's.
        """
        name = annotator_name(annotator)
        if self.annotator not in (None, name):
            problem = f"this page is {self.annotator}'s, and takes no judgements of {name}"
            raise StoreError(problem, field="annotator")
        return name

    def _paths(self, task: Task) -> tuple[str, str, str]:
        """Image, left and right, relative to the folder."""
        pair = self._store.pairs[task.pair]
        names = pair.first.render, pair.second.render
        left, right = names if task.left == "first" else names[::-1]
        return f"{IMAGES}/{pair.image}.png", f"{RENDERS}/{left}.png", f"{RENDERS}/{right}.png"

    def _sound(self, found: dict[Path, str | None], key: str) -> bool:
        """Whether all files of a pair can be shown; what is wrong with one is added to `found`."""
        for path, read in self._files(self._store.pairs[key]):
            if path not in found:
                found[path] = self._fault(path, read)
            if found[path] is not None:
                return False
        return True

    def _files(self, pair: Pair) -> Iterator[tuple[Path, Callable[[], object]]]:
        """The files of a pair, and how each is read."""
        folder = self._store.folder
        yield folder.image_path(pair), partial(folder.image, pair)
        for side in SIDES:
            yield folder.render_path(pair, side), partial(folder.render, pair, side)

    def _fault(self, path: Path, read: Callable[[], object]) -> str | None:
        """The name of a file and what keeps it from being shown; None if nothing does.

        It is decoded once and when it has changed, so that nobody judges half an image or another.
        """
        name = path.relative_to(self._store.folder.path)
        try:
            state = _state(path)
            if path not in self._read or self._read[path][0] != state:
                try:
                    read()
                    self._read[path] = state, None
                except DataError as error:
                    self._read[path] = state, f"{name}: {error.problem}"
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            return f"{name} is missing" if missing else f"{name}: {error.strerror}"
        return self._read[path][1]

    def _shown(self, task: Task) -> TaskShown:
        image, left, right = self._paths(task)
        return TaskShown(
            number=task.number,
            token=_token(task),
            region=self._store.pairs[task.pair].region,
            image=image,
            left=left,
            right=right,
        )

    def _problems(self, faults: list[str]) -> list[str]:
        """A line for each file at fault, of the first few; each file is printed or counted once."""
        for line in _summed([fault for fault in faults if fault not in self._named]):
            report(line)
        self._named.update(faults)
        return _summed(faults)


def _state(path: Path) -> FileState:
    """What changes where a file does: its times, that of its permissions too, and its size."""
    found = path.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _summed(faults: list[str]) -> list[str]:
    found = [f"{fault}; its pairs are left out" for fault in faults[:NAMED]]
    more = len(faults) - NAMED
    return found + ([f"{more} more files cannot be shown"] if more > 0 else [])


def _choice(shown: Shown, task: Task) -> Choice:
    """A side of the screen as the candidate that was shown there."""
    if shown == "left":
        return task.left
    if shown == "right":
        return "second" if task.left == "first" else "first"
    return shown


def _token(task: Task) -> str:
    parts = f"{task.annotator}\n{task.number}\n{task.pair}\n{task.repeat}"
    return xxhash.xxh3_64_hexdigest(parts.encode())


def report(problem: object) -> None:
    """A line for whoever runs the page."""
    print(f"sf-jax: {problem}", file=sys.stderr, flush=True)


def build_app(annotation: Annotation, loopback: bool = True) -> FastAPI:
    """The ASGI app.

    Args:
      loopback: it listens on this machine alone. Requests for other hosts' names are refused then,
        as a foreign web page could otherwise reach it under a name that it made point here.
    """
    app = FastAPI(title="sf_jax annotate", docs_url=None, redoc_url=None, openapi_url=None)
    page = PAGE.read_text(encoding="utf-8")
    _guard(app, loopback)
    _reply_with_reasons(app)

    @app.get("/")
    def shown() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/api/settings")
    def settings() -> dict[str, str | None]:
        return {"annotator": annotation.annotator}

    @app.get("/api/tasks")
    def tasks(annotator: str, count: Annotated[int, Query(ge=1, le=MOST_TASKS)] = 1) -> State:
        return annotation.state(annotator, count)

    @app.post("/api/judgements")
    def judge(body: JudgementBody) -> State:
        return annotation.judge(body)

    @app.post("/api/undo")
    def undo(body: Body) -> State:
        return annotation.undo(body)

    @app.get("/{folder}/{name}")
    def image(folder: Literal["images", "renders"], name: str) -> Response:
        path = annotation.files.get(f"{folder}/{name}")
        if path is None or not path.is_file():
            what = "no image of these pairs" if path is None else "is missing"
            return JSONResponse({"error": f"{folder}/{name}: {what}"}, 404)
        return FileResponse(path, media_type="image/png")

    return app


def _guard(app: FastAPI, loopback: bool) -> None:
    """Refuses what other web pages could make a browser send, and large bodies."""

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        problem = _refused(request, loopback)
        if problem is None:
            response = await answer(request)
        else:
            response = JSONResponse({"error": problem[1]}, problem[0])
        response.headers.update(HEADERS)
        return response


def _refused(request: Request, loopback: bool) -> tuple[int, str] | None:
    """Status and reason of a request that is not let in."""
    host = request.headers.get("host", "")
    if loopback and not _of_this_machine(host):
        name = printable(host) or "a request that names no host"
        return 403, f"this page is for this machine alone, not for {name}; see --host"
    # Browsers name who made a request: another site's page may link to this one, and no more.
    site = request.headers.get("sec-fetch-site", "same-origin")
    if request.scope["path"] != "/" and site not in ("same-origin", "none"):
        return 403, "only this page's own requests are answered"
    if request.method != "POST":
        return None
    # A browser asks before it sends JSON to another site's address, and is not answered.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return 415, "expected a body of type application/json"
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > MOST_BYTES:
        return 413, f"expected a body of at most {MOST_BYTES:,} bytes"
    return None


def _of_this_machine(host: str) -> bool:
    """Whether a request's `Host` is a loopback address, or the name that is always one.

    Addresses are safe whichever they are: only a name can be made to point here.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:  # another name, or nothing that a browser sends
        return False


STATUS: dict[type[DataError], int] = {UnknownTaskError: 404, JudgedError: 409, DiskError: 507}


def _reply_with_reasons(app: FastAPI) -> None:
    """Every refusal, the framework's own too, as `{"error": reason}`."""

    @app.exception_handler(DataError)
    async def refused(_: Request, error: DataError) -> JSONResponse:
        of_input = error.path is None  # what is wrong with the database names its file
        status = STATUS.get(type(error), 422 if of_input else 500)
        if not of_input:
            report(f"error: {error}")
        return JSONResponse({"error": str(error)}, status)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        # Not `request.url`, which cannot be parsed where a client sends a strange host.
        reason = f"{request.method} {printable(request.scope['path'])}: {error.detail}"
        return JSONResponse({"error": reason}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        reasons = [printable(f"{found['loc'][-1]}: {found['msg']}") for found in error.errors()]
        return JSONResponse({"error": "; ".join(reasons)}, 422)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": f"the server failed: {type(error).__name__}"}, 500)
