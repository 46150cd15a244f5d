"""A real Chromium for tests of pages: Debian's (`apt install chromium`), driven by playwright.

Tests are skipped where either is missing. The browser is a process of ours, so that a test can kill
it; its profile is a folder, which a second browser may go on with.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60.0  # seconds for a browser to start


def executable() -> str:
    """The browser's path; skips the test where there is none."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: extra 'dev'")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium: apt install chromium")
    return found


@contextmanager
def playwright() -> Iterator["Playwright"]:
    """The driver."""
    executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as found:
        yield found


class Chromium:
    """A browser with a profile folder, connected over its debugging port."""

    def __init__(self, driver: "Playwright", profile: Path):
        port = profile / "DevToolsActivePort"
        port.unlink(missing_ok=True)
        command = [executable(), "--headless=new", "--remote-debugging-port=0", "--disable-gpu"]
        command += [f"--user-data-dir={profile}", "--no-first-run", "about:blank"]
        if os.geteuid() == 0:  # as in a container, where its sandbox refuses to run
            command.append("--no-sandbox")
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        until = time.monotonic() + PATIENCE
        while not port.exists() or len(port.read_text().splitlines()) < 2:
            assert time.monotonic() < until and self._process.poll() is None, "it did not start"
            time.sleep(0.02)
        number = port.read_text().splitlines()[0]
        self.browser: Browser = driver.chromium.connect_over_cdp(f"http://127.0.0.1:{number}")

    def kill(self) -> None:
        """Ends it at once, with the processes that it started, as a crash would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
