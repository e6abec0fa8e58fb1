"""A running page and a Chromium to look at it with, for browser tests, screenshots and timings.

Knows processes, ports and Playwright. Does not know what is on the page.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
def served(*command: str, seconds: float = 180) -> Iterator[str]:
    """Run `python *command` with `{port}` filled in; its address once it answers."""
    port = free_port()
    arguments = [sys.executable, *(part.format(port=port) for part in command)]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        _wait(process, port, seconds)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield running
        running.close()


class Visit:
    """One visitor: a page of its own context that notes requests elsewhere and console errors."""

    def __init__(self, running: Browser, url: str, **options: object) -> None:
        self.url = url
        self.context: BrowserContext = running.new_context(**options)
        self.page: Page = self.context.new_page()
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("request", lambda request: self._note(request.url))
        self.page.on(
            "console", lambda line: self.errors.append(line.text) if line.type == "error" else None
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note(self, address: str) -> None:
        self.requests.append(address)
        if not address.startswith((self.url, "data:", "blob:")):
            self.foreign.append(address)

    def open(self, query: str = "") -> Page:
        """Load the page with a query and wait until the lens is drawn."""
        self.page.goto(self.url + query)
        self.page.wait_for_selector(".pl[data-state=ready]", timeout=30_000)
        return self.page

    def close(self) -> None:
        self.context.close()


def _wait(process: subprocess.Popen, port: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            output = (
                process.stdout.read().decode(errors="replace")[-3000:] if process.stdout else ""
            )
            raise RuntimeError(
                f"the app ended with code {process.returncode} before it answered:\n{output}"
            )
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError(f"the app did not answer on port {port} within {seconds:.0f} s")
