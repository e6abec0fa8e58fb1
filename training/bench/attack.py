"""Attack a server of one's own, and count what hurts: python training/bench/attack.py [--answers 1000]

Starts app.py on the bundled models on a free port of this machine and sends it hostile pictures, hostile
requests and addresses to follow, then many small pictures; beside it, everything that is saved gets
damaged, see `damage.py`. Bounded in number and time: some ten minutes on two cores. Prints a table, and
ends with status 1 where a count is not what it must be. Knows the endpoints; nothing of their answers.
"""

import argparse
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import httpx
import numpy as np
from PIL import Image

from sae.terminal import command
from tests.browser.serving import served
from tests.hostile_pictures import HOSTILE, bmp_of_runs, encoded
from training.bench.damage import ALTERED, CRASHED, report

API = "/gradio_api"
FILE = {"_type": "gradio.FileData"}
LONGEST_S = 60
"""An ordinary picture that waits longer than this, while hostile ones are sent, was blocked."""
DAMAGES = 40
"""Of each kind of saved thing."""
WARM, GROWTH = 200, 1.10
"""Memory after all answers may be as much of that after WARM."""


def small(number: int) -> bytes:
    """A small picture like no other."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels).resize((96, 96)), "PNG")


def hostile_pictures() -> dict[str, bytes]:
    """Of issue and of kind: counted, slow, large, starting programs, or lying about their size."""
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    return {
        **HOSTILE,
        "runs.bmp": bmp_of_runs(),
        "large.jp2": encoded(Image.new("RGB", (8000, 8000)), "JPEG2000"),
        "large.png": encoded(Image.new("1", (30_000, 30_000)), "PNG"),
        "program.eps": encoded(Image.new("RGB", (9, 9)), "EPS"),
        "cut.jpg": encoded(Image.fromarray(noise), "JPEG")[:9000],
        "words.png": b"Only words.",
        "nothing.png": b"",
    }


def ask(client: httpx.Client, name: str, data: bytes) -> str:
    """What `/concepts` says of a picture: its events, or a refusal."""
    sent = client.post(f"{API}/upload", files={"files": (name, data)})
    if sent.status_code != 200:
        return sent.text
    body = {"data": [{"path": sent.json()[0], "meta": FILE}]}
    while (asked := client.post(f"{API}/call/concepts", json=body)).headers.get("Retry-After"):
        time.sleep(float(asked.headers["Retry-After"]))
    return client.get(f"{API}/call/concepts/{asked.json()['event_id']}").text


def pictures(client: httpx.Client) -> tuple[int, int, float]:
    """Hostile pictures: how many, answers that are no sentence, and the longest wait of another visitor."""
    waits, done = [0.0], threading.Event()

    def visit() -> None:
        with httpx.Client(base_url=client.base_url, timeout=900) as other:
            number = 10**6
            while not done.is_set():
                number += 1
                start = time.monotonic()
                ask(other, "ordinary.png", small(number))
                waits.append(time.monotonic() - start)

    visitor = threading.Thread(target=visit)
    visitor.start()
    bad = 0
    hostile = hostile_pictures()
    for name, data in hostile.items():
        told = ask(client, name, data)
        sentence = re.search(r'event: error\ndata: \{"error": "[^"]{10,200}[.]"', told)
        bad += not (sentence or '"detail"' in told)
    done.set()
    visitor.join()
    return len(hostile), bad, max(waits)


@contextmanager
def listening() -> Iterator[tuple[str, list[object]]]:
    """An address of this machine, and who connected to it."""
    asked: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            while True:
                try:
                    asked.append(listener.accept())
                except OSError:
                    return

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/a.png", asked


def hostile_requests(address: str) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Method, path and what httpx sends."""
    file = {"path": address, "url": address, "meta": FILE}
    for name in ("concepts", "search", "steer", "compare"):
        for way in ("call", "call/v2", "run", "api"):
            for values in (
                [file],
                ["x", file],
                [None, "x", [file]],
                [{"a": file}],
                [address],
                [],
                3,
            ):
                yield "POST", f"{API}/{way}/{name}", {"json": {"data": values}}
    for way in ("component_server", "queue/join", "call/concepts", "cancel", "reset"):
        for body in (b"", b"{", b"[]", b"[" * 900_000, b"\xff", b'{"data": "' + b"a" * 2_000_000):
            yield "POST", f"{API}/{way}", {"content": body}
    for number in (99_999, -1, "a", None, [1]):
        told = {"session_hash": "a", "fn_name": "ask", "data": {}, "fn_index": number}
        for way in ("component_server", "queue/join"):
            yield "POST", f"{API}/{way}", {"json": {**told, "component_id": number}}
    for read in (f"file={address}", f"file/{address}", f"proxy={address}", "file=/etc/passwd"):
        yield "GET", f"{API}/{read}", {}
    for read in (
        "/monitoring",
        f"{API}/deep_link?session_hash=a",
        f"{API}/run-history/buckets",
        "/no",
    ):
        yield "GET", read, {}
    elsewhere = {"Origin": "http://elsewhere.example"}
    yield "POST", f"{API}/upload", {"files": {"files": ("a", b"a")}, "headers": elsewhere}
    yield "POST", f"{API}/upload", {"files": {"other": ("a", b"a")}}


def requests(client: httpx.Client) -> tuple[int, int, int]:
    """Hostile requests: how many, answers that are no sentence, and connections that the server made."""
    with listening() as (address, asked):
        n = bad = 0
        for method, path, sent in hostile_requests(address):
            answer = client.request(method, path, **sent)  # type: ignore[arg-type]
            n += 1
            refused = 400 <= answer.status_code < 500 and '"detail":' in answer.text
            bad += not (refused and len(answer.text) < 300 and "Traceback" not in answer.text)
        return n, bad, len(asked)


def memory_mib(process: int) -> float:
    """Resident memory of a process and of those that it started."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,rss="], capture_output=True, text=True, check=True
    )
    rows = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    family = {process}
    for _ in range(3):
        family |= {pid for pid, parent, _ in rows if parent in family}
    return sum(rss for pid, _, rss in rows if pid in family) / 1024


def server_of(url: str) -> int:
    """The process that serves there, a child of this one."""
    port = url.rstrip("/").rsplit(":", 1)[-1]
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True)
    (line,) = [one for one in listed.stdout.splitlines() if f"app.py --port {port} " in one + " "]
    return int(line.split()[0])


def many(client: httpx.Client, process: int, n: int) -> tuple[float, float]:
    """Memory in MiB after WARM of `n` answers for pictures that differ, and after all."""
    early = 0.0
    for number in range(n):
        told = ask(client, "a.png", small(number))
        if "event: complete" not in told:
            raise SystemExit(f"picture {number} got no answer: {told[:200]}")
        if number + 1 == min(WARM, n):
            early = memory_mib(process)
    return early, memory_mib(process)


def damage() -> tuple[int, int, int]:
    """Saved files that were damaged, loaded with another content, and that ended in no sentence."""
    with tempfile.TemporaryDirectory() as folder:
        counts = report(Path(folder), DAMAGES, seed=0).values()
    n, altered, crashed = (
        sum(sum(each.values()) if kind is None else each[kind] for each in counts)
        for kind in (None, ALTERED, CRASHED)
    )
    return n, altered, crashed


@command
def main(argv: list[str]) -> int:
    """Run every attack and print its counts; 0 if nothing hurt."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--answers", type=int, default=1000, help="small pictures (default: 1000)")
    options = parser.parse_args(argv)
    start = time.monotonic()
    with (
        served("app.py", "--port", "{port}", "--lens", "emoji", "--device", "cpu") as url,
        httpx.Client(base_url=url.rstrip("/"), timeout=900) as client,
    ):
        ask(client, "a.png", small(10**7))
        n, no_sentence, longest = pictures(client)
        print(f"hostile pictures                   {n}")
        print(f"  answers that are no sentence     {no_sentence}")
        print(f"  longest wait of another visitor  {longest:.1f} s")
        n, bad, outbound = requests(client)
        print(f"hostile requests                   {n}")
        print(f"  answers that are no sentence     {bad}")
        print(f"  connections of the server's      {outbound}", flush=True)
        early, late = many(client, server_of(url), options.answers)
    print(f"memory after {min(WARM, options.answers):4} answers          {early:.0f} MiB")
    print(
        f"memory after {options.answers:4} answers          {late:.0f} MiB, {late / early - 1:+.1%}"
    )
    damaged, altered, crashed = damage()
    print(f"saved files, damaged               {damaged}")
    print(f"  loaded with another content      {altered}")
    print(f"  ended in no sentence             {crashed}")
    print(f"took {(time.monotonic() - start) / 60:.1f} minutes")
    hurt = no_sentence + bad + outbound + altered + crashed
    return int(bool(hurt) or longest > LONGEST_S or late > GROWTH * early)


if __name__ == "__main__":
    sys.exit(main())
