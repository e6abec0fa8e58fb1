"""What of a stranger's request reaches Gradio: known addresses, small bodies, no files but uploads.

Knows: HTTP, Gradio's addresses, and how much at a time is asked by all and by one address. Does not
know: what is asked. Wraps the whole app, see `launch_settings`; all that is refused is one sentence.

Gradio itself would follow addresses that visitors name, keep what they send without a bound, serve
figures of its use, and answer unknown numbers with an error of the server's.
"""

import asyncio
import json
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import anyio
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sae.ui.bounds import Bounds, Counted, Refusal, busy
from sae.ui.dispatch import asker_left
from sae.ui.sessions import hold_nothing
from sae.ui.uploads import SWEEP_S, keep, sweep, uploaded_file

__all__ = ["Bounds", "Counted", "Guard", "Refusal", "beside", "bounded", "busy"]

if TYPE_CHECKING:
    import gradio as gr
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)
MAX_BODY = 1_000_000
"""Bytes of any request but an upload."""
MAX_UPLOAD = 24
"""Largest file that the server accepts, in MB of 1024 * 1024 bytes."""
MAX_QUEUED, MAX_QUEUED_BY_ONE, MAX_QUEUED_BY_VISIT = 64, 48, 32
"""Waiting in the queue: of the page, and as many HTTP callers; of one address; of one visit."""
MAX_SESSIONS = 32
"""Visits that Gradio knows of at a time; see `sae.ui.sessions` for what it keeps of each."""
MAX_UNREAD = 160
"""Visits for which answers wait to be read: more than can be in the queue."""
SHORT = 300
"""Letters of an error that is passed on as it is."""
API = "/gradio_api"
_GET = re.compile(
    r"/|/(?:config|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon(?:/\d+)?)"
    r"|/monitoring/summary|/(?:assets|static|svelte|patchlens)/.+"
    rf"|{API}/(?:info|openapi\.json|startup-events|app_id|user|token|login_check|theme\.css"
    r"|mcp/schema|upload_progress|queue/data|queue/status|heartbeat/[^/]+|file=.+|file/.+"
    r"|call/(?:v2/)?[^/]+/[^/]+|custom_component/.+)"
)
_DIRECT = re.compile(rf"{API}/(?:component_server|(?:run|api)/[^/]+)")
_QUEUED = re.compile(rf"{API}/(?:queue/join|call/(?:v2/)?[^/]+)")
_OTHER = re.compile(rf"{API}/(?:cancel|reset)")
_UPLOAD = f"{API}/upload"
_SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
_KINDS: dict[str, Any] = {"textbox": str | None, "number": int | float | None}
NOT_HERE = "There is nothing at this address."
FOREIGN = "Send the picture itself: an address is not fetched, and no other file is opened."
_SENTENCES = {
    404: "There is no such thing here; reload the page, or see 'Use via API'.",
    422: "This request is not understood; see 'Use via API' for what is expected.",
    500: "This could not be answered. Nothing else is affected.",
}


class Guard:
    """ASGI middleware around the Gradio app of one page; `bounds` are its own or the server's."""

    def __init__(self, app: "ASGIApp", bounds: Bounds | None = None) -> None:
        self.app = app
        self.bounds = Bounds() if bounds is None else bounds

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _ShortErrors(send)
        try:
            await self._pass(Request(scope, receive), answer)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception as error:
            if isinstance(error, TypeError) and f"{API}/call/v2/" in scope["path"]:
                wrong = Refusal(400, "These values do not fit this endpoint; see 'Use via API'.")
                await wrong.response()(scope, receive, send)
                return
            log.exception("a request could not be answered")
            if answer.begun:
                raise
            await Refusal(500, _SENTENCES[500]).response()(scope, receive, send)

    async def _pass(self, request: Request, send: "Send") -> None:
        path = _path_of(request.scope)
        address = request.client.host if request.client else ""
        if request.method in ("GET", "HEAD"):
            _check_get(path)
            here = request.method == "HEAD" and path in ("", "/")
            # Gradio asks so at its start, waits 3 s, and ends the app; the whole page may take longer
            answer = Response(media_type="text/html") if here else self.app
            await answer(request.scope, request.receive, send)
        elif request.method == "OPTIONS":
            await self.app(request.scope, request.receive, send)
        elif request.method != "POST":
            raise Refusal(405, "Only GET and POST are answered here.")
        else:
            _check_origin(request)
            if path == _UPLOAD:
                with self.bounds.uploads.one(address):
                    await self.app(request.scope, _bounded(request), send)
                return
            if not any(known.fullmatch(path) for known in (_DIRECT, _QUEUED, _OTHER)):
                raise Refusal(404, NOT_HERE)
            content = await _small_body(request)
            _check_body(content, path, request.scope["app"].get_blocks())
            if _QUEUED.fullmatch(path):
                self._check_queue(content, path, request.scope["app"].get_blocks(), address)
            if _DIRECT.fullmatch(path):
                with self.bounds.asked.one(address):
                    await self._watched(request, content, send)
            else:
                await self.app(request.scope, _again(request, content), send)

    def _check_queue(self, content: "Body", path: str, page: "gr.Blocks", address: str) -> None:
        """Room for one more: of the page or of HTTP callers, of this address and of this visit."""
        public = _function(content.told, path, page).api_visibility == "public"
        waiting = self.bounds.waiting(page)
        alike = [e for e in waiting if (e.fn.api_visibility == "public") == public]
        seconds = max(2, min(30, len(alike) // 2))
        if len(alike) >= MAX_QUEUED:
            raise busy(503, seconds)
        of_one = [e for e in alike if e.request.client and e.request.client.host == address]
        visit = content.told.get("session_hash")
        of_visit = [e for e in alike if visit and e.session_hash == visit]
        if len(of_one) >= MAX_QUEUED_BY_ONE or len(of_visit) >= MAX_QUEUED_BY_VISIT:
            raise busy(429, seconds)

    async def _watched(self, request: Request, content: "Body", send: "Send") -> None:
        """Pass it on, and tell whoever answers once the asker has left."""
        left = threading.Event()

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            left.set()

        asker_left.set(left)
        watching = asyncio.ensure_future(watch())
        try:
            await self.app(request.scope, _again(request, content, watched=True), send)
        finally:
            watching.cancel()


class Body:
    """A request's body, and what it says as JSON."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        try:
            told = json.loads(data) if data else {}
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "The request is no JSON; see 'Use via API'.") from error
        if not isinstance(told, dict):
            raise Refusal(400, "The request is no JSON object; see 'Use via API'.")
        self.told: dict[str, Any] = told

    def tell(self, told: dict[str, Any]) -> None:
        """Say `told` instead."""
        self.told, self.data = told, json.dumps(told).encode()


def _path_of(scope: "Scope") -> str:
    root, path = scope.get("root_path", ""), str(scope["path"])
    below = path[len(root) :] if root and path.startswith(root) else path
    return below if below in ("", "/") else below.rstrip("/") or "/"


def _check_get(path: str) -> None:
    if not _GET.fullmatch(path or "/"):
        raise Refusal(404, NOT_HERE)
    for start in (f"{API}/file=", f"{API}/file/"):
        if path.startswith(start) and uploaded_file(path.removeprefix(start)) is None:
            raise Refusal(403, FOREIGN)


def _check_origin(request: Request) -> None:
    """A page elsewhere may not act with a visitor's browser; programs name no origin."""
    headers = request.headers
    if headers.get("sec-fetch-site") in ("same-origin", "none"):
        return
    origin = headers.get("origin")
    if headers.get("sec-fetch-site") is None and origin is None:
        return
    own = {headers.get("host", ""), headers.get("x-forwarded-host", "")} - {""}
    if origin is None or urlsplit(origin).netloc not in own:
        raise Refusal(403, "This request comes from another site's page, and is not answered.")


async def _small_body(request: Request) -> Body:
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise Refusal(415, "Files are sent to /gradio_api/upload alone.")
    data = bytearray()
    _check_length(request, MAX_BODY)
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY:
            raise _too_long(MAX_BODY)
    return Body(bytes(data))


def _check_length(request: Request, most: int) -> None:
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > most:
        raise _too_long(most)


def _too_long(most: int) -> Refusal:
    return Refusal(413, f"The request is longer than {most:,} bytes.")


def _bounded(request: Request) -> "Receive":
    """The upload's body, as far as a file of MAX_UPLOAD and its form take."""
    most, read = MAX_UPLOAD * 1024**2 + 10_000, 0
    _check_length(request, most)

    async def receive() -> "Message":
        nonlocal read
        message = await request.receive()
        read += len(message.get("body", b""))
        if read > most:
            raise _too_long(most)
        return message

    return receive


def _again(request: Request, content: Body, *, watched: bool = False) -> "Receive":
    """The body that has been read, then what comes after it."""
    told = False

    async def receive() -> "Message":
        nonlocal told
        if not told:
            told = True
            return {"type": "http.request", "body": content.data, "more_body": False}
        if watched:  # somebody else listens
            await asyncio.Event().wait()
        return await request.receive()

    return receive


def _check_body(content: Body, path: str, blocks: "gr.Blocks") -> None:
    told = content.told
    session = told.get("session_hash")
    if session is not None and not (isinstance(session, str) and _SESSION.fullmatch(session)):
        raise Refusal(400, "session_hash is no name of a visit: letters and digits, at most 64.")
    _check_files(told)
    if path == f"{API}/component_server":
        component = told.get("component_id")
        known = type(component) is int and component in blocks.blocks
        act = getattr(blocks.blocks[component], str(told.get("fn_name")), None) if known else None
        if not getattr(act, "_is_server_fn", False):
            raise Refusal(404, "There is no such component or question here; reload the page.")
    elif _DIRECT.fullmatch(path) or _QUEUED.fullmatch(path):
        act = _function(told, path, blocks)
        if act.api_visibility == "public" and f"{API}/call/v2/" not in path:
            _fill_up(content, [one for one in act.inputs if getattr(one, "may_lack", False)], act)
            _check_values(content.told.get("data"), [one.get_block_name() for one in act.inputs])


def _fill_up(content: Body, optional: list[Any], act: Any) -> None:
    """None for the last values of an endpoint that may be left out, as `optional` says."""
    given = content.told.get("data")
    lacking = len(act.inputs) - len(given) if isinstance(given, list) else 0
    if isinstance(given, list) and 0 < lacking <= len(optional):
        content.tell({**content.told, "data": [*given, *[None] * lacking]})


def _check_values(given: object, kinds: list[str]) -> None:
    """As many values as the endpoint takes, each of its kind; else Gradio has no sentence for it."""
    if not isinstance(given, list) or len(given) != len(kinds):
        raise Refusal(400, f"data is a list of {len(kinds)} values here; see 'Use via API'.")
    for value, kind in zip(given, kinds, strict=True):
        if kind == "file" and not (value is None or isinstance(value, dict) and value.get("meta")):
            raise Refusal(400, FOREIGN)
        if not isinstance(value, _KINDS.get(kind, object)):
            raise Refusal(400, f"One of the values is no {kind}; see 'Use via API'.")


def _function(told: dict[str, Any], path: str, blocks: "gr.Blocks") -> Any:
    """Gradio's function for a request to the queue or past it."""
    number = told.get("fn_index")
    if number is not None or path == f"{API}/queue/join":
        function = blocks.fns.get(number) if type(number) is int else None
    else:
        name = path.rsplit("/", 1)[-1]
        function = next((one for one in blocks.fns.values() if one.api_name == name), None)
    if function is None:
        raise Refusal(404, "There is no such endpoint here; see 'Use via API'.")
    return function


def _check_files(told: object) -> None:
    """No address and no file but an upload, in any field that looks as if it named one."""
    waiting = [told]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            waiting += one.values()
            is_file = isinstance(one.get("meta"), dict)
            path, url = one.get("path"), one.get("url")
            own = unquote(str(url).partition(f"{API}/file=")[2])  # what Gradio's clients add
            for given, file in ((path, path), (url, own)):
                if (is_file and given or _is_address(given)) and uploaded_file(file) is None:
                    raise Refusal(400, FOREIGN)


def _is_address(text: object) -> bool:
    return isinstance(text, str) and ("://" in text or text.startswith(("//", "data:")))


class _ShortErrors:
    """Sends an answer; the text of an error is at most SHORT letters, and says nothing of the inside."""

    def __init__(self, send: "Send") -> None:
        self.send, self.begun = send, False
        self._start: Message | None = None
        self._text = b""

    async def __call__(self, message: "Message") -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
            return
        if self._start is None or message["type"] != "http.response.body":
            self.begun = True
            await self.send(message)
            return
        self._text += message.get("body", b"")[: SHORT + 1]
        if message.get("more_body"):
            return
        start, self._start, self.begun = self._start, None, True
        if len(self._text) > SHORT or b"Traceback" in self._text or start["status"] == 422:
            status = start["status"] if start["status"] in _SENTENCES else 500
            self._text = json.dumps({"detail": _SENTENCES[status]}).encode()
        kept = [h for h in start["headers"] if h[0].lower() not in (b"content-length", b"etag")]
        kept.append((b"content-length", str(len(self._text)).encode()))
        await self.send({**start, "headers": kept})
        await self.send({"type": "http.response.body", "body": self._text})


async def _upload(request: Request) -> Response:
    """One file, in the field `files`; its path on the server, in a list."""
    try:
        async with request.form(max_files=1, max_fields=4) as form:
            file = form.get("files")
            if file is None or isinstance(file, str):
                return JSONResponse({"detail": "Send one file, in the field 'files'."}, 400)
            path = await anyio.to_thread.run_sync(keep, file.filename or "", file.file)
            return JSONResponse([path])
    except MultiPartException:
        return JSONResponse({"detail": "This is no form with one file."}, 400)


def _empty(nothing: object) -> Callable[[Request], Response]:
    """What Gradio's own page asks for, empty: the figures of others' calls are nobody's business."""
    return lambda _request: JSONResponse(nothing)


ROUTES = (
    Route(_UPLOAD, _upload, methods=["POST"]),
    Route("/monitoring/summary", _empty({"functions": {}})),
    Route(f"{API}/mcp/schema", _empty([])),
)
"""Addresses that are answered here instead of by Gradio."""


@asynccontextmanager
async def bounded(app: Any) -> AsyncIterator[None]:
    """While a page runs, visits are held without what they were shown, and unread answers are bounded."""
    hold_nothing(app)
    app.get_blocks()._queue.pending_messages_per_session.max_size = MAX_UNREAD
    yield


@asynccontextmanager
async def beside(app: Any) -> AsyncIterator[None]:
    """What runs beside a server's first page: `bounded`, and the upload folder is swept."""

    async def sweep_again() -> None:
        while True:
            await anyio.to_thread.run_sync(sweep)
            await asyncio.sleep(SWEEP_S)

    async with bounded(app):
        sweeping = asyncio.ensure_future(sweep_again())
        try:
            yield
        finally:
            sweeping.cancel()
