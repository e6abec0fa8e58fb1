"""What a browser, a search engine or a chat reads of the page before any script runs: its name.

Knows Gradio's HTML. Gradio writes the title with a script, so that until then a tab shows the address, and
previews of links are called "Gradio" and show a picture of Gradio's from elsewhere.
"""

import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TITLE = "PatchLens"
DESCRIPTION = "See what a vision model looked at, turn it off, and watch its answer change"
_OF_GRADIO = re.compile(
    rb"<title>[^<]*</title>|<meta\s[^>]*(?:property|name)=\"(?:og|twitter):[^>]*>", re.DOTALL
)
_CHARSET = re.compile(rb"<meta charset=\"utf-8\" ?/?>")


class PageHead:
    """ASGI middleware around the Gradio app: the page's own title and description, from the first byte."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        asked = scope["type"] == "http" and scope["method"] == "GET" and scope["path"].endswith("/")
        await self.app(scope, receive, _Rewritten(send) if asked else send)


def with_head(html: bytes) -> bytes:
    """The page with its own name instead of Gradio's; anything else unchanged."""
    if not _CHARSET.search(html):
        return html
    own = "".join(
        f'<meta {key}="{name}" content="{escape(text)}" />'
        for key, name, text in (
            ("name", "description", DESCRIPTION),
            ("property", "og:type", "website"),
            ("property", "og:title", TITLE),
            ("property", "og:description", DESCRIPTION),
            ("name", "twitter:card", "summary"),
        )
    )
    title = f"<title>{escape(TITLE)}</title>{own}".encode()
    return _CHARSET.sub(lambda found: found[0] + title, _OF_GRADIO.sub(b"", html), count=1)


class _Rewritten:
    """Sends an answer; HTML that is not packed is collected and given its head."""

    def __init__(self, send: "Send") -> None:
        self.send = send
        self._start: Message | None = None
        self._html = b""

    async def __call__(self, message: "Message") -> None:
        if message["type"] == "http.response.start":
            headers = {name.lower(): value for name, value in message["headers"]}
            is_html = headers.get(b"content-type", b"").startswith(b"text/html")
            if is_html and b"content-encoding" not in headers:
                self._start = message
                return
        if self._start is None or message["type"] != "http.response.body":
            await self.send(message)
            return
        self._html += message.get("body", b"")
        if message.get("more_body"):
            return
        start, self._start = self._start, None
        html = with_head(self._html)
        kept = [one for one in start["headers"] if one[0].lower() != b"content-length"]
        kept.append((b"content-length", str(len(html)).encode()))
        await self.send({**start, "headers": kept})
        await self.send({"type": "http.response.body", "body": html})
