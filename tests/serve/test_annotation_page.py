"""The annotation page in a real browser: by keyboard, on a telephone, through crashes."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sf_jax.systems.superface import store
from sf_jax.systems.superface.folder import PairFolder
from sf_jax.systems.superface.queues import QueueOptions
from sf_jax.systems.superface.store import Stored
from tests.serve.chromium import Chromium, executable, playwright
from tests.serve.test_annotation import annotate, served
from tests.systems.superface.folders import fill

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright, Route

PATIENCE = 60_000  # milliseconds after which a test gives up
READY = '#stage[aria-busy="false"]'
KEYS = {"left": "ArrowLeft", "right": "ArrowRight", "tie": "ArrowDown", "unclear": "ArrowUp"}
SIZES = [(360, 740), (844, 390), (768, 1024), (1024, 640), (640, 400)]  # telephones to laptops


@pytest.fixture(scope="module")
def driver() -> Iterator["Playwright"]:
    with playwright() as found:
        yield found


@pytest.fixture(scope="module")
def browser(driver: "Playwright") -> Iterator["Browser"]:
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    found = driver.chromium.launch(executable_path=executable(), args=flags)
    yield found
    found.close()


@pytest.fixture
def folder(tmp_path: Path) -> PairFolder:
    return fill(tmp_path / "pairs", 8)


def opened(browser: "Browser", url: str, name: str = "anna", **how: Any) -> "Page":
    """A window of its own that shows the first pair."""
    page = browser.new_context(**how).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{url}/?annotator={name}")
    page.wait_for_selector(READY)
    return page


def shown(page: "Page") -> int:
    """The number of the task that is shown, once it is."""
    return int(page.wait_for_selector(READY).get_attribute("data-task"))


def press(page: "Page", choice: str) -> int | None:
    """Judges by a key; the number of the next task, None where it was the last."""
    number = shown(page)
    page.keyboard.press(KEYS[choice])
    page.wait_for_selector(f'{READY}:not([data-task="{number}"]), #done:not([hidden])')
    return None if page.is_visible("#done") else shown(page)


def judged(folder: PairFolder, annotator: str = "anna") -> dict[int, Stored]:
    """The judgements that count, by the number of their task."""
    with store.reading(folder) as judgements:
        found = judgements.judged(annotator)
    assert len({one.number for one in found}) == len(found)
    return {one.number: one for one in found}


def side(one: Stored) -> str:
    """What was chosen, as it was shown."""
    choice = one.judgement.choice
    if choice in ("tie", "unclear"):
        return choice
    return "left" if choice == one.judgement.left else "right"


@pytest.mark.slow
def test_by_keyboard_alone(browser: "Browser", folder: PairFolder) -> None:
    with served(folder) as (client, _):
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE)
        foreign: list[str] = []
        page.on("request", lambda request: foreign.append(request.url))
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(client.url)
        page.wait_for_selector("#name:focus")
        page.keyboard.type("anna")
        page.keyboard.press("Enter")
        page.wait_for_selector(READY)
        assert "face" in page.inner_text("#question") and "0 judged" in page.inner_text("#count")
        for choice in KEYS:
            assert press(page, choice) is not None
        assert [side(one) for one in judged(folder).values()] == list(KEYS)
        page.keyboard.press("Backspace")
        page.wait_for_selector(f'{READY}[data-task="3"]')
        assert list(judged(folder)) == [0, 1, 2]
        page.keyboard.press("Control+ArrowLeft")  # the browser's own
        focused, tabs = "document.activeElement.dataset.choice", 0
        while page.evaluate(focused) != "tie":
            page.keyboard.press("Tab")
            tabs += 1
            assert tabs < 10
        page.keyboard.press("Enter")
        page.wait_for_selector(f'{READY}[data-task="4"]')
        assert side(judged(folder)[3]) == "tie"
        while press(page, "right") is not None:
            pass
        assert "8 judgements are saved" in page.inner_text("#done")
        page.keyboard.press("Backspace")
        page.wait_for_selector(f'{READY}[data-task="7"]')
        assert all(url.startswith(client.url) for url in foreign) and not errors
        page.context.close()


def test_what_was_not_saved_when_the_page_was_closed(
    browser: "Browser", folder: PairFolder
) -> None:
    with served(folder) as (client, judgements):
        page = opened(browser, client.url)
        cut_off(page)
        page.keyboard.press(KEYS["tie"])
        page.locator("#notice", has_text="Not saved yet").wait_for()
        assert judgements.judgements() == []
        again = page.context.new_page()  # with the same storage, as after closing the browser
        page.close()
        again.context.set_offline(False)
        again.set_default_timeout(PATIENCE)
        again.goto(client.url)
        assert shown(again) == 1 and side(judged(folder)[0]) == "tie"
        assert not unsaved(again)
        again.context.close()


def cut_off(page: "Page") -> None:
    """Takes the network from a page and its context.

    A handler that refuses its requests would outlive the page: one that is repeated while the page
    is closed fails in the handler, and with it whatever the test does then.
    """
    page.context.set_offline(True)


def unsaved(page: "Page") -> bool:
    """Whether the browser keeps a choice that was not saved."""
    return "unsaved" in page.evaluate("JSON.stringify(Object.keys(localStorage))")


@pytest.mark.slow
def test_a_choice_that_was_not_saved_waits_for_its_own_folder(
    browser: "Browser", folder: PairFolder, tmp_path: Path
) -> None:
    """Also where another folder is served under the same address meanwhile."""
    other = fill(tmp_path / "other", 8, start=100)
    context, port = browser.new_context(), 0

    def first(url: str) -> "Page":
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"{url}/?annotator=anna")
        shown(page)
        assert not page.is_visible("#notice")
        return page

    for one, choice in ((folder, "tie"), (other, "unclear")):
        with served(one, port=port) as (client, judgements):
            port = int(client.url.rpartition(":")[2])
            page = first(client.url)
            cut_off(page)
            page.keyboard.press(KEYS[choice])
            page.locator("#notice", has_text="Not saved yet").wait_for()
            page.close()
            assert judgements.judgements() == []
            context.set_offline(False)
    for one, choice in ((other, "unclear"), (folder, "tie")):
        with served(one, port=port) as (client, _):
            page = first(client.url)
            assert shown(page) == 1 and side(judged(one)[0]) == choice
            assert unsaved(page) == (one is other)
            page.close()
    context.close()


@pytest.mark.slow
def test_a_page_that_takes_another_s_judgements_by_now(
    browser: "Browser", folder: PairFolder
) -> None:
    """As where the server was started again with --annotator: it says so, and goes on later."""
    with served(folder) as (client, _):
        page = opened(browser, client.url)
    port = int(client.url.rpartition(":")[2])
    with served(folder, "bert", port=port):
        page.keyboard.press(KEYS["left"])
        page.locator("#notice", has_text="this page is bert's").wait_for()
        assert shown(page) == 0 and not page.locator(".chosen").count() and unsaved(page)
    with served(folder, port=port):
        assert press(page, "right") == 1
        assert side(judged(folder)[0]) == "right"
        assert not page.is_visible("#notice") and not unsaved(page)
    page.context.close()


@pytest.mark.slow
def test_another_name_on_the_same_machine(browser: "Browser", folder: PairFolder) -> None:
    with served(folder) as (client, judgements):
        page = opened(browser, client.url)
        press(page, "left")
        page.click("#who")
        page.wait_for_selector("#name:focus")
        assert not page.is_visible("#judging") and page.url == f"{client.url}/"
        page.keyboard.press("ArrowLeft")  # moves in the text, and judges nothing
        page.fill("#name", "bert")
        page.keyboard.press("Enter")
        assert shown(page) == 0 and page.inner_text("#by") == "bert"
        press(page, "right")
        page.reload()
        assert shown(page) == 1 and page.inner_text("#by") == "bert"
        assert [one.annotator for one in judgements.judgements()] == ["anna", "bert"]
        page.context.close()


# Which of the three are visible, at one moment: between two questions the next face may be shown.
VISIBLE = """() => ["image", "flicker-left", "flicker-right"].filter((id) =>
  document.querySelector(`#${id} img`)?.checkVisibility({ checkVisibilityCSS: true })).join()"""
# Collects what is visible and how it is named, in each frame that is drawn.
WATCH = f"""() => {{
  const visible = {VISIBLE};
  window.met = new Set();
  const look = () => {{
    window.met.add(`${{visible()}} ${{document.getElementById("flickered").textContent}}`);
    requestAnimationFrame(look);
  }};
  look();
}}"""


def test_holding_flickers_between_the_two(browser: "Browser", folder: PairFolder) -> None:
    def waits(page: "Page", wanted: str) -> None:
        """Asks again and again: the page's policy forbids what playwright would wait with."""
        until = time.monotonic() + PATIENCE / 1000
        while page.evaluate(VISIBLE) != wanted:
            assert time.monotonic() < until, f"{wanted} was not shown"
            page.wait_for_timeout(20)

    with served(folder) as (client, _):
        page = opened(browser, client.url)
        assert page.evaluate(VISIBLE) == "image"
        page.keyboard.down(" ")
        waits(page, "flicker-left")
        page.evaluate(WATCH)
        waits(page, "flicker-right")
        waits(page, "flicker-left")
        met = set(page.evaluate("[...window.met]"))
        assert met == {"flicker-left Left", "flicker-right Right"}
        page.keyboard.up(" ")
        waits(page, "image")
        assert shown(page) == 0
        page.hover("#flicker")
        page.mouse.down()
        waits(page, "flicker-left")
        page.mouse.up()
        waits(page, "image")
        page.context.close()


@pytest.mark.slow
def test_on_a_telephone(browser: "Browser", folder: PairFolder) -> None:
    with served(folder) as (client, _):
        touch = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
        page = opened(browser, client.url, **touch)
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            size = "[document.scrollingElement.scrollWidth, document.scrollingElement.scrollHeight]"
            assert page.evaluate(size) == [width, height]  # all is seen without scrolling
            for one in page.locator("[data-choice], .tools button").all():
                box = one.bounding_box()
                assert box is not None and box["height"] >= 44
                assert box["x"] >= 0 and box["x"] + box["width"] <= width
        page.tap('[data-choice="unclear"]')
        page.wait_for_selector(f'{READY}[data-task="1"]')
        page.tap("#undo")
        page.wait_for_selector(f'{READY}[data-task="0"]')
        assert judged(folder) == {}
        page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.slow
def test_for_people_who_see_or_hear_less(
    browser: "Browser", folder: PairFolder, scheme: str
) -> None:
    module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core")
    axe = module.Axe()

    def check(page: "Page") -> None:
        found = axe.run(page).response["violations"]
        assert not found, [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]

    with served(folder) as (client, _):
        page = browser.new_context(color_scheme=scheme).new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(client.url)
        page.wait_for_selector("#name")
        check(page)
        page.context.close()
        page = opened(browser, client.url, color_scheme=scheme)
        check(page)
        while press(page, "left") is not None:
            pass
        check(page)
        page.context.close()


@pytest.mark.slow
def test_two_annotators_at_once(browser: "Browser", folder: PairFolder) -> None:
    with served(folder) as (client, judgements):
        anna, bert = (opened(browser, client.url, name) for name in ("anna", "bert"))
        for _ in range(3):
            assert press(anna, "left") is not None and press(bert, "right") is not None
        shown_to = {
            name: {one.judgement.pair for one in judgements.judged(name)}
            for name in ("anna", "bert")
        }
        gold = {pair.key for pair in folder.pairs if pair.gold}
        assert [len(pairs) for pairs in shown_to.values()] == [3, 3]
        assert shown_to["anna"] & shown_to["bert"] <= gold
        again = opened(browser, client.url)  # a second window of the same annotator
        number = shown(anna)
        assert shown(again) == number
        press(anna, "left")
        again.keyboard.press(KEYS["right"])
        again.wait_for_selector("#notice:not([hidden])")
        assert "has judged pair" in again.inner_text("#notice")
        assert shown(again) == shown(anna) and side(judged(folder)[number]) == "left"
        for page in (anna, bert, again):
            page.context.close()


@pytest.mark.slow
def test_images_that_are_gone_or_damaged_are_named(browser: "Browser", folder: PairFolder) -> None:
    with served(folder) as (client, _):
        first, second, third, *_ = client.tasks(count=8)["tasks"]
        (folder.path / first["image"]).unlink()
        path = folder.path / second["image"]
        path.write_bytes(path.read_bytes()[:60])
        page = opened(browser, client.url)
        assert shown(page) == third["number"]
        notice = page.inner_text("#notice")
        for image, problem in ((first["image"], " is missing"), (second["image"], ": ")):
            assert f"{image}{problem}" in notice
        while press(page, "left") is not None:
            pass
        assert "Some pairs could not be shown" in page.inner_text("#done")
        page.context.close()
    assert {0, 1} & set(judged(folder)) == set() and len(judged(folder)) == 6


@pytest.mark.slow
def test_an_image_that_the_browser_cannot_show(browser: "Browser", folder: PairFolder) -> None:
    with served(folder) as (client, _):
        first, second, *_ = client.tasks()["tasks"]
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE)
        page.route(f"**/{first['left']}", lambda route: route.fulfill(body="no image"))
        page.route(f"**/{second['image']}", lambda route: route.abort())
        page.goto(f"{client.url}/?annotator=anna")
        assert shown(page) == 2
        assert "cannot be shown; the pair is left out" in page.inner_text("#notice")
        page.context.close()


@pytest.mark.slow
def test_images_that_could_not_be_loaded_for_a_while(
    browser: "Browser", folder: PairFolder
) -> None:
    """As while the server is started again: no pair is left out for that."""
    with served(folder) as (client, _):
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE)
        refused: list[str] = []

        def refuse(route: "Route") -> None:
            refused.append(route.request.url)
            route.abort() if refused.count(refused[-1]) == 1 else route.continue_()

        page.route("**/images/*", refuse)
        page.goto(f"{client.url}/?annotator=anna")
        assert shown(page) == 0
        while press(page, "left") is not None:
            pass
        assert len(judged(folder)) == 8 and len(set(refused)) == 8
        page.context.close()


@pytest.mark.parametrize("count", [24, 200], ids=lambda count: f"{count} pairs")
@pytest.mark.slow
def test_a_session_with_two_kills_of_the_server_and_one_of_the_browser(
    driver: "Playwright", tmp_path: Path, count: int
) -> None:
    """Nothing is lost and nothing stored twice, and what is stored is what was pressed."""
    folder, profile = fill(tmp_path / "pairs", count), tmp_path / "profile"
    rng = np.random.default_rng(count)
    pressed: dict[int, set[str]] = {}
    kills = {count // 4: "server, busy", count // 2: "browser", 3 * count // 4: "server"}
    session = Session(driver, folder, profile)
    try:
        number: int | None = session.start()
        while number is not None:
            choice = list(KEYS)[int(rng.integers(4))]
            pressed.setdefault(number, set()).add(choice)
            if (kill := kills.pop(len(pressed), None)) is None:
                number = press(session.page, choice)
            else:
                number = session.survive(kill, choice)
    finally:
        session.end()
    assert not kills
    found = judged(folder)
    first = [one for one in found.values() if not one.judgement.repeat]
    assert sorted(one.judgement.pair for one in first) == sorted(p.key for p in folder.pairs)
    assert sorted(found) == sorted(pressed)
    # The key that was pressed as the browser was killed may have been too late.
    assert all(side(one) in pressed[number] for number, one in found.items())
    assert sum(len(choices) for choices in pressed.values()) <= len(found) + 1


class Session:
    """A server and a browser that can be killed."""

    def __init__(self, driver: "Playwright", folder: PairFolder, profile: Path):
        self._driver, self._folder, self._profile = driver, folder, profile
        profile.mkdir()
        self._serve("0")

    def _serve(self, port: str) -> None:
        options = QueueOptions()
        self._serving = annotate(self._folder, "--port", port, "--overlap", f"{options.overlap}")
        self._server, self.url = self._serving.__enter__()

    def _stop(self) -> None:
        self._server.send_signal(signal.SIGKILL)
        self._serving.__exit__(None, None, None)

    def start(self) -> int:
        """Opens the page in a new browser; the number of the task that it shows."""
        self._chromium = Chromium(self._driver, self._profile)
        self.page = self._chromium.browser.contexts[0].new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.goto(f"{self.url}/?annotator=anna")
        return shown(self.page)

    def survive(self, kill: str, choice: str) -> int | None:
        """Presses a key around a kill of something; the number of the task that is shown then."""
        if kill == "browser":
            self.page.keyboard.press(KEYS[choice])
            self._chromium.kill()
            with suppress(Exception):
                self._chromium.browser.close()
            return self.start()
        before, port = shown(self.page), self.url.rpartition(":")[2]
        if kill == "server, busy":
            self.page.keyboard.press(KEYS[choice])
            self._stop()
        else:
            self._stop()
            self.page.keyboard.press(KEYS[choice])
            self.page.wait_for_selector("#notice:not([hidden])")
            assert "Not saved yet: the server does not answer" in self.page.inner_text("#notice")
        self._serve(port)
        self.page.wait_for_selector(f'{READY}:not([data-task="{before}"])')
        assert not self.page.is_visible("#notice")
        return shown(self.page)

    def end(self) -> None:
        self._chromium.kill()
        self._stop()
