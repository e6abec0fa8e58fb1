"""The Concepts tab: its component, the events behind it, and the endpoint `/concepts`.

Knows: Gradio's events and components. Does not know: how an answer is computed.
The component's value is an answer of `ConceptsDesk`; its script draws it and asks for the next one.
"""

from typing import Any

import gradio as gr

from sae.ui.dispatch import QuestionError, fields_of
from sae.ui.links import KEYS
from sae.ui.page import (
    MODEL,
    QUIET,
    Page,
    lens_name,
    sent_file,
    sent_path,
)


def build(page: Page) -> None:
    """Build the tab inside the open Blocks context."""
    desk = page.concepts
    desk.offer(page.dispatch)
    shown = page.component(
        "concepts",
        "concepts.js",
        "open",
        "sent",
        value=desk.start(),
        examples=desk.gallery.strip(),
        composes=desk.gallery.composes,
    )

    def answer(event: gr.EventData, request: gr.Request) -> dict[str, object]:
        asked = fields_of(event._data)
        desk.uploads.remember(request.session_hash or "", fields_of(asked.get("data")).get("path"))
        return page.dispatch.ask({"ticket": 0, **asked, "way": "open"})

    def remember(event: gr.EventData, request: gr.Request) -> None:
        """A picture was sent that other tabs, or several side by side, will ask about."""
        path = fields_of(event._data).get("path")
        desk.uploads.remember(request.session_hash or "", path)

    def leave(request: gr.Request) -> None:
        desk.uploads.end(request.session_hash or "")

    def follow_link(request: gr.Request) -> Any:
        query = {key: str(text) for key, text in request.query_params.items()}
        if not any(key in query for key in KEYS):
            return gr.skip()
        try:
            return page.dispatch.run(lambda: desk.link(query))
        except QuestionError as error:
            return {"ticket": 0, "problem": str(error)}

    shown.open(answer, outputs=[shown], trigger_mode="multiple", **QUIET, **MODEL)
    shown.sent(remember, queue=False, **QUIET)
    page.demo.unload(leave)
    page.demo.load(follow_link, outputs=[shown], **QUIET, **MODEL)
    _concepts_endpoint(page)


def _concepts_endpoint(page: Page) -> None:
    def concepts(image: str | None, lens: str | None = None) -> list[dict[str, object]]:
        """The concepts of a picture, strongest first: at most 64 rows. `lens`: the page's own unless named.

        Every row has latent (its number), name (may be empty), activation (maximum over patches),
        mean (over all patches) and frequency (share of the index's images; null without an index).
        """
        return page.lenses.desk(lens, page.lens).rows_of(sent_path(image, "concepts"))

    page.endpoint(concepts, [sent_file(), lens_name()], "concepts")
