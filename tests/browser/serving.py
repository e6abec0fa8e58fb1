"""A running page and a Chromium to look at it with, for browser tests, screenshots and timings.

Knows processes, ports and Playwright. Does not know what is on the page.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gradio_client import Client
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_S = 300
"""How long is waited for anything, before the wait itself is called a failure: no measure of pace."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """Path of a Chromium: PATCHLENS_CHROMIUM, or the first one on the path."""
    found = (shutil.which(name) for name in NAMES)
    return os.environ.get("PATCHLENS_CHROMIUM") or next((path for path in found if path), None)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(*command: str) -> Iterator[str]:
    """Run `python *command` with `{port}` filled in; its address once it answers."""
    port = free_port()
    arguments = [sys.executable, *(part.format(port=port) for part in command)]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    url = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            arguments, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait_until_it_answers(process, url, log)
            yield url
        finally:
            process.terminate()
            process.wait()


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield running
        running.close()


def client_of(url: str) -> Client:
    """A caller of the HTTP endpoints."""
    patient = {"timeout": PATIENCE_S}
    return Client(url, verbose=False, analytics_enabled=False, httpx_kwargs=patient)


class Visit:
    """One visitor: a page of its own context that notes requests elsewhere and console errors."""

    def __init__(self, running: Browser, url: str, **options: object) -> None:
        self.url = url
        self.context: BrowserContext = running.new_context(**options)
        self.context.set_default_timeout(1000 * PATIENCE_S)
        self.page: Page = self.context.new_page()
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("request", lambda request: self._note(request.url))
        self._cut_off = False
        self.page.on(
            "console", lambda line: self._hear(line.text) if line.type == "error" else None
        )
        self.page.on("pageerror", lambda error: self._hear(str(error)))

    def _note(self, address: str) -> None:
        self.requests.append(address)
        if not address.startswith((self.url, "data:", "blob:")):
            self.foreign.append(address)

    def _hear(self, error: str) -> None:
        """Note it, but for what Gradio says of an answer that is cut off because the page is left."""
        if error.startswith("AbortError: ") and "/assets/" in error:
            self._cut_off = True
        elif self._cut_off and "Connection errored out" in error:
            self._cut_off = False
        else:
            self.errors.append(error)

    def open(self, query: str = "") -> Page:
        """Load the page with a query and wait until the lens is drawn."""
        self.page.goto(self.url + query)
        self.page.wait_for_selector(".pl[data-state=ready]")
        return self.page

    def close(self) -> None:
        self.context.close()


def wait_until_it_answers(process: subprocess.Popen, url: str, log: BinaryIO) -> None:
    """Return once there is an answer at `url`; RuntimeError if the process, which writes to `log`,
    ends before."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if process.poll() is not None:
            log.seek(0)
            raise RuntimeError(
                f"the app ended with code {process.returncode} before it answered:\n"
                f"{log.read().decode(errors='replace')[-3000:]}"
            )
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S):
                return
        except (urllib.error.URLError, ConnectionError):  # nobody listens yet
            time.sleep(0.05)
    raise RuntimeError(f"the app did not answer at {url} within {PATIENCE_S} s")
