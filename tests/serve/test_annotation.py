"""The annotation page's service: over HTTP without a browser, and as `sf-jax annotate`."""

import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sf_jax import cli
from sf_jax.cli import loading
from sf_jax.media.images import encode_png
from sf_jax.serve import annotating
from sf_jax.serve.annotation import NAMED, Annotation, build_app
from sf_jax.serve.listening import address, configured, listen
from sf_jax.systems.superface import database, store
from sf_jax.systems.superface import folder as folders
from sf_jax.systems.superface.folder import PairFolder
from sf_jax.systems.superface.queues import QueueOptions, Queues
from tests.systems.superface.answering import Answering
from tests.systems.superface.folders import fill

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds after which a test gives up
JSON = {"Content-Type": "application/json"}
EACH = QueueOptions(overlap=0, repeats=0)


class Client:
    """Requests to a running page."""

    def __init__(self, url: str):
        self.url = url

    def send(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and content, parsed where it is JSON; bytes are sent as they are."""
        host = self.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=PATIENCE)
        given = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        connection.request(method, path, given, JSON if headers is None else headers)
        reply = connection.getresponse()
        content = reply.read()
        is_json = reply.headers["Content-Type"] == "application/json"
        connection.close()
        return reply.status, json.loads(content) if is_json else content

    def tasks(self, annotator: str = "anna", count: int = 3) -> dict[str, Any]:
        status, state = self.send(f"/api/tasks?annotator={annotator}&count={count}")
        assert status == 200, state
        return state

    def judge(self, task: dict[str, Any], choice: str = "left", **other: Any) -> tuple[int, Any]:
        body = {"id": f"judgement-{task['number']}", "annotator": "anna", "choice": choice}
        body |= {"number": task["number"], "token": task["token"], "seconds": 1.5}
        return self.send("/api/judgements", body | other)


@pytest.fixture
def folder(tmp_path: Path) -> PairFolder:
    return fill(tmp_path / "pairs", 6)


@contextmanager
def served(
    folder: PairFolder,
    annotator: str | None = None,
    options: QueueOptions = EACH,
    loopback: bool = True,
    port: int = 0,
) -> Iterator[tuple[Client, store.JudgementStore]]:
    """A page in a thread of this process."""
    with store.writing(folder) as judgements, listen("127.0.0.1", port) as listening:
        annotation = Annotation(judgements, Queues(judgements, options), annotator)
        server = annotating.Server(configured(build_app(annotation, loopback), 1), lambda: None)
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
        thread.start()
        try:
            yield Client(address(listening)), judgements
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def annotate(folder: PairFolder, *options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """`sf-jax annotate` in a process of its own, and its address."""
    started = subprocess.Popen(
        [sys.executable, "-m", "sf_jax", "annotate", str(folder.path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert started.stdout is not None and started.stderr is not None
        lines = [started.stdout.readline() for _ in range(2)]
        assert lines[1].startswith("open http"), started.stderr.read()
        yield started, lines[1].split()[1]
    finally:
        started.kill()
        started.communicate()


def test_the_page_learns_what_it_shows_and_no_more(folder: PairFolder) -> None:
    with served(folder) as (client, _):
        state = client.tasks()
        assert (state["judged"], state["remaining"], state["last"]) == (0, 6, None)
        assert [task["number"] for task in state["tasks"]] == [0, 1, 2]
        for task in state["tasks"]:
            assert set(task) == {"number", "token", "region", "image", "left", "right"}
            for name in ("image", "left", "right"):
                status, content = client.send(f"/{task[name]}")
                assert status == 200 and content == (folder.path / task[name]).read_bytes()
        status, page = client.send("/")
        assert status == 200 and page.startswith(b"<!doctype html>")
        assert b"http:" not in page and b"https:" not in page.replace(b"on https and", b"")


def test_a_choice_is_stored_as_the_candidate_that_was_shown_there(folder: PairFolder) -> None:
    with served(folder) as (client, judgements):
        choices = ("left", "right", "tie", "unclear", "left", "right")
        for choice in choices:
            (task, *_), sides = client.tasks()["tasks"], {}
            status, state = client.judge(task, choice)
            assert status == 200
            one = judgements.judgements()[-1]
            pair = judgements.pairs[one.pair]
            sides = {pair.first.render: "first", pair.second.render: "second"}
            shown = {side: sides[Path(task[side]).stem] for side in ("left", "right")}
            assert one.choice == shown.get(choice, choice) and one.left == shown["left"]
        assert state["judged"] == 6 and state["tasks"] == [] and state["remaining"] == 0


def test_what_is_sent_again_is_stored_once(folder: PairFolder) -> None:
    with served(folder) as (client, judgements):
        task = client.tasks()["tasks"][0]
        first, second = client.judge(task, count=2), client.judge(task, count=2)
        assert first == second and first[1]["judged"] == 1
        assert [other["number"] for other in first[1]["tasks"]] == [1, 2]
        body = {"annotator": "anna", "id": first[1]["last"]}
        assert client.send("/api/undo", body) == client.send("/api/undo", body)
        assert client.tasks()["tasks"][0] == task and judgements.judgements() == []
        assert client.judge(task)[1]["judged"] == 0  # a late copy of what was undone
        assert client.judge(task, id="judgement-of-another")[1]["judged"] == 1


def test_requests_that_are_refused(folder: PairFolder, capfd: pytest.CaptureFixture) -> None:
    with served(folder) as (client, judgements):
        task = client.tasks()["tasks"][0]
        body = json.dumps({"id": "judgement-0", "annotator": "anna"}).encode()
        evil, other = JSON | {"Host": "evil.example"}, JSON | {"Sec-Fetch-Site": "cross-site"}
        near, strange = {"Host": "127.0.0.1.evil.example"}, {"Host": "["}
        undo = {"annotator": "anna", "id": "judgement-0"}
        for (status, reply), expected, reason in [
            (client.judge(task | {"number": 99}), 404, "anna has no task 99"),
            (client.judge(task | {"token": "of another"}), 404, "another folder of pairs; reload"),
            (client.judge(task, "middle"), 422, "choice: Input should be 'left', 'right'"),
            (client.judge(task, seconds=-1), 422, "'seconds': found -1, expected 0 to"),
            (client.judge(task, id="!"), 422, "letters, digits"),
            (client.judge(task, annotator=" "), 422, "'annotator': is empty"),
            (client.judge(task, more=1), 422, "more: Extra inputs are not permitted"),
            (client.judge(task | {"number": 2**70}), 422, "number: Input should be less than"),
            (client.judge(task, seconds=10**400), 422, "seconds"),
            (client.judge(task | {"token": "\ud800"}), 404, "another folder of pairs; reload"),
            (client.judge(task, annotator="\ud800"), 422, "characters that do not print"),
            (client.judge(task, **{"\ud800": 1}), 422, ""),
            (client.send("/api/undo", undo), 404, "has no"),
            (client.send("/api/undo", undo | {"id": "\ud800"}), 422, "letters, digits"),
            (client.send("/api/undo", undo | {"annotator": "\ud800"}), 422, "do not print"),
            (client.send("/api/judgements", b"{", JSON), 422, "JSON"),
            (client.send("/api/judgements", body, {"Content-Type": "text/plain"}), 415, "type"),
            (client.send("/api/judgements", b" " * 20_000, JSON), 413, "at most 10,000 bytes"),
            (client.send("/api/tasks?annotator=anna", None, evil), 403, "not for evil.example"),
            (client.send("/api/tasks?annotator=anna", None, other), 403, "own requests"),
            (client.send("/", None, near), 403, "not for 127.0.0.1.evil.example"),
            (client.send("/", None, strange), 403, "not for [; see --host"),
            (client.send("/", None, {"Host": ""}), 403, "a request that names no host"),
            (client.send("/api/tasks"), 422, "annotator: Field required"),
            (client.send("/images/..%2Fpairs.jsonl"), 404, ""),
            (client.send(f"/renders/{'0' * 32}.png"), 404, "no image of these pairs"),
            (client.send("/judgements.sqlite"), 404, ""),
        ]:
            assert status == expected and set(reply) == {"error"} and reason in reply["error"]
        assert client.judge(task)[0] == 200
        status, reply = client.judge(task, id="from-another-window")
        assert status == 409 and "has judged pair" in reply["error"]
        assert len(judgements.judgements()) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("host", ["localhost:8010", "127.0.0.2:8010", "[::1]:8010", "127.0.0.1"])
def test_every_loopback_address_is_this_machine(folder: PairFolder, host: str) -> None:
    with served(folder) as (client, _):
        assert client.send("/api/settings", None, {"Host": host})[0] == 200


def test_a_page_for_the_network_has_any_name(folder: PairFolder) -> None:
    with served(folder, loopback=False) as (client, _):
        assert client.send("/", None, {"Host": "studio.example:8010"})[0] == 200
        other = {"Sec-Fetch-Site": "cross-site"}
        assert client.send("/", None, other)[0] == 200  # a link to it
        assert client.send("/api/settings", None, other)[0] == 403
        strange = {"Host": "["}
        assert client.send("/api/settings", None, strange)[0] == 200
        assert client.send("/nothing/at/all", None, strange)[0] == 404


def test_one_annotator_alone(folder: PairFolder) -> None:
    with served(folder, "anna") as (client, _):
        assert client.send("/api/settings") == (200, {"annotator": "anna"})
        assert client.tasks("anna")["tasks"]
        status, reply = client.send("/api/tasks?annotator=bert")
        assert status == 422 and "this page is anna's, and takes no" in reply["error"]


def test_pairs_whose_images_are_gone_are_left_out_and_named(
    folder: PairFolder, capfd: pytest.CaptureFixture
) -> None:
    with served(folder) as (client, _):
        first, second, *_ = client.tasks()["tasks"]
        gone = folder.path / first["image"]
        gone.rename(gone.with_suffix(".away"))
        state = client.tasks()
        assert len(state["tasks"]) == 3 and state["tasks"][0] == second
        problem = f"{first['image']} is missing; its pairs are left out"
        assert state["problems"] == [problem]
        assert client.send(f"/{first['image']}")[0] == 404
        client.tasks()
        gone.with_suffix(".away").rename(gone)
        assert client.tasks()["tasks"][0] == first
    assert capfd.readouterr().err.count(problem) == 1


def test_a_folder_without_its_images_is_gone_through_once(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each request; nobody is given what cannot be shown, and a few lines name it."""
    folder = fill(tmp_path / "pairs", 40)
    away = (folder.path / folders.IMAGES).rename(tmp_path / "away")
    found: Counter[Path] = Counter()
    plain = Path.stat

    def stat(path: Path, **how: Any) -> os.stat_result:
        found[path] += path.parent.name == folders.IMAGES
        return plain(path, **how)

    with store.writing(folder) as judgements:
        annotation = Annotation(judgements, Queues(judgements, EACH))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "stat", stat)
            state = annotation.state("anna", 3)
        assert sum(found.values()) == 40 == state.remaining
        assert state.tasks == [] == judgements.tasks()
        assert len(state.problems) == NAMED + 1 and "is missing; its pairs" in state.problems[0]
        assert state.problems[-1] == f"{40 - NAMED} more files cannot be shown"
        assert annotation.state("bert", 3).problems != []
        assert capfd.readouterr().err.count("\n") == NAMED + 1
        away.rename(folder.path / folders.IMAGES)
        state = annotation.state("bert", 3)
        assert len(state.tasks) == 3 == len(judgements.tasks()) and state.problems == []


def test_images_that_are_damaged_or_others_are_left_out(folder: PairFolder) -> None:
    with served(folder) as (client, _):
        first, second, third, fourth, *_ = client.tasks(count=6)["tasks"]
        for task, content in ((first, b""), (second, b"no image"), (third, fourth)):
            path = folder.path / task["image"]
            other = folder.path / fourth["image"]
            path.write_bytes(content if isinstance(content, bytes) else other.read_bytes())
        state = client.tasks()
        assert state["tasks"][0] == fourth and len(state["problems"]) == 3
        assert "is another image than the pairs name" in state["problems"][2]


def test_a_full_disk_and_a_locked_database_are_waited_for(
    folder: PairFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    with served(folder) as (client, judgements):
        task = client.tasks(count=6)["tasks"][0]
        pages = judgements.database.connection.execute("PRAGMA page_count").fetchone()[0]
        judgements.database.connection.execute(f"PRAGMA max_page_count = {pages}")
        status, number = 200, 0
        while status == 200 and number < 50:  # tasks are stored, too
            number += 1
            path = f"/api/tasks?annotator={'b' * 60}{number}&count=6"
            status, reply = client.send(path)
        assert status == 507 and "database or disk is full; all judgements" in reply["error"]
        judgements.database.connection.execute(f"PRAGMA max_page_count = {pages + 100}")
        with sqlite3.connect(folder.judgements) as other:
            other.execute("BEGIN IMMEDIATE")
            status, reply = client.judge(task)
            assert status == 500 and "is locked by another program; close it" in reply["error"]
            other.rollback()
        assert client.judge(task)[0] == 200 and len(judgements.judgements()) == 1


def test_the_command_serves_until_a_signal_and_alone(
    folder: PairFolder, capsys: pytest.CaptureFixture
) -> None:
    with annotate(folder, "--port", "0") as (started, url):
        client = Client(url)
        client.judge(client.tasks()["tasks"][0])
        assert cli.main(["annotate", str(folder.path), "--port", "0"]) == 2
        error = capsys.readouterr().err
        assert f"{folder.path}: process {started.pid} on " in error and error.count("\n") == 1
        assert cli.main(["annotate", str(folder.path), "--agreement"]) == 0
        assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["anna", "1"]
        started.send_signal(signal.SIGTERM)
        assert started.wait(PATIENCE) == 0
        assert started.stderr is not None and "stopped: 1 judgements" in started.stderr.read()


def test_the_command_exports_and_imports(
    folder: PairFolder, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pairs, out = str(folder.path), str(tmp_path / "out.jsonl")
    assert cli.main(["annotate", pairs, "--export", out]) == 2
    assert "judgements.sqlite: no such file; nothing was judged" in capsys.readouterr().err
    with served(folder) as (client, _):
        for task in client.tasks(count=6)["tasks"]:
            client.judge(task)
    assert cli.main(["annotate", pairs, "--export", out]) == 0
    assert capsys.readouterr().out == f"{out}: lines written: 6\n"
    assert cli.main(["annotate", pairs, "--import", out]) == 0
    assert capsys.readouterr().out == "judgements added: 0; there already: 6\n"
    for path in folder.path.glob("judgements*"):
        path.unlink()
    assert cli.main(["annotate", pairs, "--import", out]) == 0
    assert capsys.readouterr().out == "judgements added: 6; there already: 0\n"
    trl = str(tmp_path / "trl.jsonl")
    assert cli.main(["annotate", pairs, "--export", trl, "--format", "trl"]) == 0
    assert len(Path(trl).read_text().splitlines()) == 5  # one pair of the six is gold


def no_pairs(folder: PairFolder) -> None:
    (folder.path / folders.PAIRS).unlink()


def damaged_pairs(folder: PairFolder) -> None:
    path = folder.path / folders.PAIRS
    path.write_text(path.read_text()[:-50])


def no_image(folder: PairFolder) -> None:
    folder.image_path(folder.pairs[2]).unlink()


def no_render(folder: PairFolder) -> None:
    folder.render_path(folder.pairs[0], "second").unlink()


def broken_database(folder: PairFolder) -> None:
    folder.judgements.write_bytes(b"no database at all" * 100)


BROKEN = {
    no_pairs: "pairs.jsonl: no such file; `sf-jax data pairs` makes",
    damaged_pairs: "pairs.jsonl, line 7",
    no_image: ".png: is missing; pair",
    no_render: ".png: is missing; pair",
    broken_database: "judgements.sqlite: is damaged, and was left as it is",
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda one: one.__name__)
def test_a_broken_folder_is_one_clear_line(
    folder: PairFolder, damage: Any, capsys: pytest.CaptureFixture
) -> None:
    damage(folder)
    assert cli.main(["annotate", str(folder.path), "--port", "0"]) == 2
    out, error = capsys.readouterr()
    assert BROKEN[damage] in error and error.count("\n") == 1 and "open" not in out


def test_a_rig_that_is_gone_is_named_and_the_page_needs_none(
    folder: PairFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """No pairs can be added; those that are there are judged and exported as before."""
    monkeypatch.setattr(loading, "load_model", lambda directory: Answering())
    gone, image = tmp_path / "gone.glb", tmp_path / "image.png"
    image.write_bytes(encode_png(np.zeros((20, 24, 3), np.uint8)))
    with served(folder) as (client, _):
        assert client.judge(client.tasks()["tasks"][0])[0] == 200
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    adding = ["data", "pairs", str(image), "--out", str(folder.path), "--size", "64"]
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"PK")
    for rig, problem in ((gone, "no such file"), (damaged, "")):
        assert cli.main([*adding, "--rig", str(rig)]) == 2
        out, error = capsys.readouterr()
        assert f"{rig}: {problem}" in error and error.count("\n") == 1 and not out
    after = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    assert after == before
    with served(folder) as (client, judgements):
        state = client.tasks()
        assert state["judged"] == 1 and not state["problems"]
        assert client.judge(state["tasks"][0])[0] == 200
        assert len(judgements.judgements()) == 2
    exported = tmp_path / "judgements.jsonl"
    assert cli.main(["annotate", str(folder.path), "--export", str(exported)]) == 0
    assert len(exported.read_text().splitlines()) >= 2


def test_without_the_web_framework(
    folder: PairFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.startswith("sf_jax.serve.annotati")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert cli.main(["annotate", str(folder.path)]) == 2
    assert "fastapi, which is not installed: pip install 'sf_jax[annotate]'" in (
        capsys.readouterr().err
    )


def test_arguments(folder: PairFolder, capsys: pytest.CaptureFixture) -> None:
    for arguments, reason in [
        (["--overlap", "2"], "'2' is not a share from 0 to 1"),
        (["--export", "a", "--agreement"], "not allowed with"),
        (["--annotator", "\n"], "'annotator': is empty"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
    ]:
        assert cli.main(["annotate", str(folder.path), "--port", "0", *arguments]) == 2
        assert reason in capsys.readouterr().err
