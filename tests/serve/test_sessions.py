"""Sessions and messages over the wire: a client's frames belong together, and to nobody else."""

import asyncio
import base64
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sf_jax.face import channels, livelink
from sf_jax.face.describe import describe
from sf_jax.face.landmarks import Square
from sf_jax.media import video
from sf_jax.reader import loading
from sf_jax.reader.files import PredictOptions, predict_files
from sf_jax.reader.finder import Found
from sf_jax.reader.framing import Framed, Framer
from sf_jax.reader.output import rationale_json
from sf_jax.reader.session import SessionOptions
from sf_jax.serve import bodies
from sf_jax.serve.client import ServiceError, Session, ask
from sf_jax.serve.service import Limits
from sf_jax.serve.sessions import SessionMismatchError, Sessions, SessionsFullError
from tests.media.videos import write_video
from tests.serve.test_service import (
    PATIENCE,
    PREDICT,
    FakeModel,
    Reply,
    action_of,
    call,
    on_loopback,
    png,
    same,
    serving,
    until,
)

MESSAGES = [{"role": "user", "content": "<image>What is this face doing?"}]


def asked(app: Any, query: str, level: int = 100) -> Reply:
    return asyncio.run(call(app, PREDICT, png(level), query))


def test_frames_of_a_session_follow_one_another() -> None:
    model = FakeModel()
    with serving(model) as (app, _):
        replies = [asked(app, "session=cam-1", level) for level in (1, 2, 3)]
        assert asked(app, "", 4).content.keys() == replies[0].content.keys() - {"frame"}
        assert asyncio.run(call(app, "/health")).content["sessions"] == 1
    assert [reply.content["frame"]["number"] for reply in replies] == [0, 1, 2]
    previous = [called["previous"] for _, called in model.called]
    assert previous[0] is None and previous[3] is None
    assert same(previous[1][0], action_of(np.full(1, 1)))
    assert same(previous[2][0], action_of(np.full(1, 2)))
    for level, reply in enumerate(replies, 1):
        frame = reply.content["frame"]
        assert frame["session"] == "cam-1" and frame["found"] is True
        expected = np.clip(action_of(np.full(1, level)).coefficients, channels.LOW, channels.HIGH)
        np.testing.assert_array_equal(np.float32([*frame["values"].values()]), expected)


def test_sessions_do_not_leak() -> None:
    """Frames of two clients in turn give what each gets alone."""

    def run(order: list[tuple[str, int]]) -> dict[str, list]:
        found: dict[str, list] = {}
        with serving(FakeModel()) as (app, _):
            for name, level in order:
                reply = asked(app, f"session={name}&smooth=true", level)
                found.setdefault(name, []).append(reply.content["frame"])
        return found

    ones, others = [("a", 1), ("a", 2), ("a", 3)], [("b", 7), ("b", 8), ("b", 9)]
    mixed = run([frame for pair in zip(ones, others, strict=True) for frame in pair])
    assert mixed == run(ones) | run(others)


def test_frames_of_one_session_wait_for_each_other() -> None:
    model = FakeModel(threading.Event())

    async def ask_all() -> list[Reply]:
        tasks = []
        for level in (1, 2, 3):
            tasks.append(asyncio.ensure_future(call(app, PREDICT, png(level), "session=a")))
            await asyncio.sleep(0.01)
        await until(lambda: model.called)
        await asyncio.sleep(0.05)
        assert len(model.called) == 1  # the others are not even asked about
        model.gate.set()  # type: ignore[union-attr]
        return await asyncio.gather(*tasks)

    with serving(model) as (app, _):
        replies = asyncio.run(ask_all())
    assert [reply.content["frame"]["number"] for reply in replies] == [0, 1, 2]


def test_a_frame_that_fails_leaves_its_session_as_it_was() -> None:
    with serving(FakeModel()) as (app, service):
        assert asked(app, "session=new", 13).status == 422
        assert len(service.sessions) == 0  # it begins with a frame that is answered
        assert asked(app, "session=a", 1).status == 200
        assert asked(app, "session=a", 14).status == 500
        assert asyncio.run(call(app, PREDICT, b"no picture", "session=a")).status == 422
        assert asked(app, "session=a", 2).content["frame"]["number"] == 1


def test_a_frame_given_up_while_it_is_framed_does_not_move_the_box(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its thread goes on beside the next frame of its session, and after it."""
    begun, gate = threading.Event(), threading.Event()

    def find(image: np.ndarray) -> list[Found]:
        level = int(image[0, 0, 0])
        if level == 200:
            begun.set()
            gate.wait(PATIENCE)
        return [Found(Square(20.0 + level % 20, 20.0, 30.0), 0.9)]

    class Watching(FakeModel):
        def predict_batch(self, images: list[Framed], **called: Any) -> list:
            assert images[0].picture is not None
            shown.append(images[0].picture.pixels)
            return super().predict_batch(images, **called)

    async def ask_all(levels: list[int]) -> None:
        for level in levels:
            asked = asyncio.ensure_future(call(app, PREDICT, png(level), "session=a"))
            if level == 200:
                await until(begun.is_set)
                asked.cancel()  # as the time limit does
                continue
            assert (await asked).status == 200
            if begun.is_set():
                gate.set()
                await asyncio.sleep(0.05)

    monkeypatch.setattr("sf_jax.reader.tracking.SEARCH_EVERY", 2)
    found = []
    for levels in ([1, 2, 200, 3, 7, 9], [1, 2, 3, 7, 9]):
        shown: list[np.ndarray] = []
        with serving(Watching(framer=Framer(find))) as (app, _):
            asyncio.run(ask_all(levels))
        found.append(shown)
    np.testing.assert_array_equal(*found)


def test_few_images_are_held_whole_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def find(image: np.ndarray) -> list[Found]:
        gate.wait(PATIENCE)
        return [Found(Square(20.0, 20.0, 30.0), 0.9)]

    async def ask_all() -> list[Reply]:
        tasks = [
            asyncio.ensure_future(call(app, PREDICT, png(level), f"session={level}"))
            for level in range(4)
        ]
        await until(lambda: service.held == 4 and decoded)
        await asyncio.sleep(0.05)
        assert len(decoded) == 1  # the others wait as files
        gate.set()
        return await asyncio.gather(*tasks)

    monkeypatch.setattr("sf_jax.serve.service.WHOLE", 1)
    with serving(FakeModel(framer=Framer(find))) as (app, service):
        decoded: list[int] = []
        whole = service.decoders.whole
        monkeypatch.setattr(
            service.decoders, "whole", lambda *given: decoded.append(1) or whole(*given)
        )
        assert {reply.status for reply in asyncio.run(ask_all())} == {200}
    assert len(decoded) == 4


def test_a_neutral_frame_is_subtracted_from_then_on() -> None:
    with serving(FakeModel()) as (app, _):
        queries = ("neutral=true", "", "")
        replies = [
            asked(app, f"session=a&{query}", level).content
            for query, level in zip(queries, (5, 5, 6), strict=True)
        ]
    values = np.array([[*reply["frame"]["values"].values()] for reply in replies])
    below = action_of(np.full(1, 5)).coefficients <= 0.95  # beyond, see `remove_neutral`
    assert not values[:2, below].any() and values[2, below].any()
    for reply, of in zip(replies, values, strict=True):
        assert reply["frame"]["rationale"] == rationale_json(describe(of)) != reply["rationale"]
    assert all(np.any([*reply["coefficients"].values()]) for reply in replies)


def test_there_is_room_for_so_many() -> None:
    limits = Limits(sessions=2)
    with serving(FakeModel(), limits) as (app, service):
        assert [asked(app, f"session={name}").status for name in "ab"] == [200, 200]
        full = asked(app, "session=c")
        assert full.status == 503 and full.content["error"] == "busy: 2 sessions are open already"
        assert full.headers["retry-after"] == "1"
        assert asked(app, "session=a").content["frame"]["number"] == 1
        assert asked(app, "").status == 200  # others are not concerned
        for status in (200, 404):
            reply = asyncio.run(call(app, "/v1/sessions/b", method="DELETE"))
            assert reply.status == status
        assert asked(app, "session=c").status == 200 and len(service.sessions) == 2


def test_idle_sessions_are_closed_by_time() -> None:
    now = 0.0
    held = Sessions(FakeModel(), 1, 60.0, lambda: now)

    async def use(name: str) -> int:
        async with held.use(name, None) as session:
            session.number += 1
            assert len(held) == 1
        return session.number

    assert asyncio.run(use("a")) == 1
    now = 59.0
    assert asyncio.run(use("a")) == 2
    with pytest.raises(SessionsFullError, match="1 sessions are open"):
        asyncio.run(use("b"))
    now = 119.5
    assert asyncio.run(use("b")) == 1  # a was closed, and makes room
    now = 200.0
    assert len(held) == 0

    async def long() -> None:
        nonlocal now
        async with held.use("a", None) as session:
            session.number += 1
            now += 1000.0
            assert len(held) == 1  # not while a frame is being read

    asyncio.run(long())
    assert len(held) == 1


def test_a_session_keeps_its_options() -> None:
    with serving(FakeModel()) as (app, _):
        assert asked(app, "session=a&smooth=true&fps=24").status == 200
        assert asked(app, "session=a").status == 200
        assert asked(app, "session=a&smooth=true&fps=24").status == 200
        other = asked(app, "session=a&smooth=true")
        assert other.status == 409
        assert (
            other.content["error"] == "session 'a' began with fps=24.0; close it to begin another"
        )
    held = Sessions(FakeModel(), 1, 60.0)

    async def use(options: SessionOptions) -> None:
        async with held.use("a", options) as session:
            session.number += 1

    asyncio.run(use(SessionOptions(whole=False)))
    with pytest.raises(SessionMismatchError, match="'a' began with whole=False;"):
        asyncio.run(use(SessionOptions()))


@pytest.mark.parametrize(
    "query, reason",
    [
        ("session=", "session: "),
        ("session=a%2Fb", "session: "),
        (f"session={'a' * 65}", "session: "),
        ("values=mean", "values: belongs to a session; name one with session="),
        ("crop=true", "whole: this model has no finder"),
        ("crop=true&whole=true", "crop: says the opposite of whole"),
        ("face=0", "face: "),
        ("face=all", "whole: this model has no finder"),
        ("face=all&whole=true", "face: is for faces that are found"),
        ("seconds=1", "seconds: belongs to a session"),
        ("session=a&values=best", "values: "),
        ("session=a&fps=0", "fps: "),
        ("session=a&seconds=nan", "seconds: "),
        ("session=a&fsp=3", "fsp: "),
    ],
)
def test_what_names_no_session_is_refused(query: str, reason: str) -> None:
    with serving() as (app, _):
        reply = asked(app, query)
    assert reply.status == 422 and reason in reply.content["error"]


def test_time_that_runs_backwards_is_refused() -> None:
    with serving() as (app, _):
        assert asked(app, "session=a&smooth=true&seconds=2").status == 200
        reply = asked(app, "session=a&seconds=1")
    assert reply.status == 422 and "seconds: time runs backwards" in reply.content["error"]


class Instructed(FakeModel):
    instructed = True


def body(image: bytes | str = png(7), **more: Any) -> bytes:
    text = image if isinstance(image, str) else base64.b64encode(image).decode()
    return json.dumps({"image": text} | more).encode()


JSON = {"Content-Type": "application/json"}


def test_messages_reach_a_model_that_is_instructed() -> None:
    model = Instructed()
    with serving(model) as (app, _):
        reply = asyncio.run(call(app, PREDICT, body(messages=MESSAGES), headers=JSON))
        plain = asyncio.run(call(app, PREDICT, body(), headers=JSON))
    assert reply.status == plain.status == 200
    assert reply.content == plain.content
    assert [called["messages"] for _, called in model.called] == [MESSAGES, None]


def test_only_equal_messages_share_a_batch() -> None:
    model = Instructed(threading.Event())
    others = [{"role": "user", "content": "<image>Else?"}]

    async def ask_all() -> None:
        tasks = [asyncio.ensure_future(call(app, PREDICT, png(1)))]
        await until(lambda: model.called)
        for messages in (MESSAGES, others, MESSAGES, None):
            sent = body(messages=messages)
            tasks.append(asyncio.ensure_future(call(app, PREDICT, sent, headers=JSON)))
            await until(lambda: service.batcher.waiting == len(tasks) - 1)
        model.gate.set()  # type: ignore[union-attr]
        await asyncio.gather(*tasks)

    with serving(model) as (app, service):
        asyncio.run(ask_all())
    found = [(size, called["messages"]) for size, called in model.called[1:]]
    assert found == [(2, MESSAGES), (1, others), (1, None)]


@pytest.mark.parametrize(
    "sent, reason",
    [
        (b"{", "the body: not JSON"),
        (b"[" * 2000 + b"]" * 2000, "the body: nested more than 64 deep"),
        (b'{"image": NaN}', "image': found NaN or infinity"),
        (b"[1]", "image: expected"),
        (b'{"image": 3}', "image: expected"),
        (body("no base64!"), "image: not base64"),
        (body(b"no picture"), "image: not an image"),
        (body(prompt="x"), "prompt: no field of the body; there are image, messages"),
        (body(messages="Read."), "messages: expected a list"),
        (body(messages=["Read."]), "messages: expected a list of objects"),
        (body(messages=[{"role": "robot", "content": "?"}]), "message 1: the role is 'robot'"),
        (body(messages=[]), "messages: "),
        (body(messages=[{"role": "user", "content": "<image><image>"}]), "messages: "),
        (body(messages=[{"role": "user", "content": "x" * 40_000}]), "at most 32,768 are read"),
        (body(messages=[{"role": "user", "content": "\ud800"}]), "messages: no Unicode text"),
        (b'{"image": "", "messages": [%s{}]}' % (b"{}," * 20_000), "too many values for messages"),
    ],
)
def test_messages_that_are_none_are_refused(sent: bytes, reason: str) -> None:
    model = Instructed()
    with serving(model) as (app, _):
        reply = asyncio.run(call(app, PREDICT, sent, headers=JSON))
    assert reply.status == 422 and reason in reply.content["error"] and not model.called


def test_messages_of_commas_alone_are_read_up_to_their_bound() -> None:
    model = Instructed()
    size = len(json.dumps([{"role": "user", "content": "<image>"}]))
    fits = [{"role": "user", "content": "<image>" + "," * (Limits().messages - size)}]
    with serving(model) as (app, _):
        reply = asyncio.run(call(app, PREDICT, body(messages=fits), headers=JSON))
    assert reply.status == 200 and model.called[0][1]["messages"] == fits


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_large_body_is_read_beside_the_event_loop(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[threading.Thread] = []
    read = bodies.read_json_body

    def recorded(body: bytes, most: int) -> Any:
        readers.append(threading.current_thread())
        return read(body, most)

    monkeypatch.setattr(bodies, "read_json_body", recorded)
    with serving() as (app, _):
        sent = b'{"a": 1, "a": "%s"}' % (b"x" * size)
        reply = asyncio.run(call(app, PREDICT, sent, headers=JSON))
    assert reply.status == 422 and "field 'a': given twice" in reply.content["error"]
    assert [thread is threading.main_thread() for thread in readers] == [size == 10]


def test_the_built_in_model_reads_no_messages() -> None:
    with serving() as (app, _):
        reply = asyncio.run(call(app, PREDICT, body(messages=MESSAGES), headers=JSON))
    assert reply.status == 422 and "trained on its own prompt" in reply.content["error"]


def test_the_client_passes_both() -> None:
    model = Instructed()
    with on_loopback(model, Limits()) as url:
        for level in (1, 2):
            ask(url, png(level), session="x", messages=MESSAGES)
        assert [called["messages"] for _, called in model.called] == [MESSAGES] * 2
        assert same(model.called[1][1]["previous"][0], action_of(np.full(1, 1)))
        with Session(url, smooth=True, seed=3) as session:
            frames = [session.frame(png(level)) for level in (1, 2)]
            assert [frame.number for frame in frames] == [0, 1] and frames[0].found
            assert same(frames[1].action, action_of(np.full(1, 2)))
            assert frames[1].values.dtype == np.float32
            assert np.abs(frames[1].values - frames[1].action.coefficients).max() > 0.01
            with pytest.raises(ServiceError, match="409, session"):
                Session(url, session.name).frame(png())
        session.close()  # again: nothing to close is no error
        assert model.called[-1][1]["seed"] == [3]
        assert session.frame(png()).number == 0
        with Session(url) as session:
            frame = session.frame(png(5), neutral=True)
            assert frame.rationale == describe(frame.values) != frame.action.rationale


def test_a_video_is_read_as_its_frames_in_a_session(tmp_path: Path) -> None:
    """`sf-jax predict` on a file, and the same frames sent to a service: the same values."""
    from data_pipelines.synthetic import face_record

    faces = [face_record(i, 9, "evaluation")["image"] for i in (0, 0, 1, 1, 2)]
    frames = [np.asarray(Image.fromarray(face).resize((200, 160))) for face in faces]
    clip = write_video(tmp_path / "clip.avi", 24.0, frames)
    model = loading.load()
    options = PredictOptions(tmp_path / "out", whole=False, force=True, smooth=True, previews=False)
    assert predict_files(model, [clip], options) == []
    take = livelink.read(tmp_path / "out" / "clip.csv")
    with (
        on_loopback(model, Limits(), batch=1) as url,
        Session(url, whole=False, force=True, smooth=True, fps=24.0) as session,
    ):
        found = [session.frame(image) for image in video.open_video(clip).frames()]
    assert [frame.number for frame in found] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(
        np.stack([frame.values for frame in found]), take.coefficients, rtol=0, atol=1e-9
    )
    assert np.ptp(take.coefficients, axis=0).max() > 0.1
