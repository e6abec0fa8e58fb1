"""What every tab is made with: the models, who answers, limits, components and HTTP endpoints.

Knows: Gradio's components and events. Does not know: any tab. Whatever a tab's script asks goes to
`Dispatch`; everything that the server answers is private but for the endpoints.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from sae.adaptation.class_compare import ClassComparison
from sae.concepts.notes import MAX_CONCEPTS, MAX_NAME, MAX_NOTE
from sae.steering.classes import ClassSteerer
from sae.steering.edits import MAX_EDITS, MAX_PROMPT
from sae.ui.catalogue import MAX_ICONS, Catalogue
from sae.ui.concepts_desk import ConceptsDesk
from sae.ui.dispatch import Dispatch, Json, QuestionError
from sae.ui.guard import MAX_UPLOAD
from sae.ui.lenses import Lenses
from sae.ui.links import OTHER_SAE
from sae.ui.static_files import script, template
from sae.ui.uploads import GONE, uploaded_file
from sae.views.code import MAX_PER_PLACE, to_base64
from sae.views.colours import lookup_table
from sae.views.ranking import N_STRONG, WEAK_SHARE
from sae.world.scenes import MAX_OBJECTS

if TYPE_CHECKING:
    from sae.adaptation.compare import Comparison
    from sae.backbones import Backbone
    from sae.concepts.index import ConceptIndex
    from sae.model import SparseAutoencoder
    from sae.steering import Steerer

QUIET = {"show_progress": "hidden", "api_visibility": "private"}
"""Of events that only the page's own scripts raise."""
MODEL = {"concurrency_id": "model", "concurrency_limit": 2}
CALLS = {"concurrency_id": "calls", "concurrency_limit": 2}
WRITING = {"concurrency_id": "writing", "concurrency_limit": 1}
WRITING_CALLS = {"concurrency_id": "writing calls", "concurrency_limit": 1}
"""Who waits for whom: the page for itself and HTTP callers for each other, so that neither fills the
other's queue; texts take long, so opening a picture does not queue behind them. One model runs at a
time, see `Dispatch`; two at a time are read and decoded."""


@dataclass(frozen=True)
class Page:
    """The models behind the page, what is known of them, and who answers."""

    demo: gr.Blocks
    backbone: "Backbone"
    sae: "SparseAutoencoder"
    index: "ConceptIndex | None"
    metrics: Mapping[str, object] | None
    catalogue: Catalogue
    concepts: ConceptsDesk
    dispatch: Dispatch = field(default_factory=Dispatch)
    steerer: "Callable[[], Steerer] | ClassSteerer | None" = None
    experiments: Path | None = None
    comparison: "Comparison | ClassComparison | None" = None
    sources: tuple[str, str] = ("bundled", "bundled")
    about: Json = field(default_factory=dict)
    """Which models these are, for files that are taken away; see `sae.ui.identity`."""
    tabs: tuple[str, ...] = ()
    """Names of the tabs that are there, in order."""
    lens: str = ""
    """This page's own, among `lenses`."""
    lenses: Lenses = field(default_factory=lambda: Lenses(()))
    """Those of the server."""

    @property
    def forms(self) -> tuple[str, ...]:
        """The tabs as the About tab tells of them: on a classifier two have another form."""
        classes = {
            "steer": isinstance(self.steerer, ClassSteerer),
            "compare": isinstance(self.comparison, ClassComparison),
        }
        return tuple(f"{tab}_classes" if classes.get(tab) else tab for tab in self.tabs)

    def component(
        self,
        name: str,
        module: str,
        *events: str,
        value: Json | None = None,
        layout: str = "",
        **setup: object,
    ) -> gr.HTML:
        """A component of the page: static/NAME.html (or `layout`), its script `module`, and what it
        needs once.

        The script finds the page's limits in `props.setup.limits`, its models in `props.setup.about`,
        asks with `server.ask({way, …})`, see `Dispatch`, and raises `events`.
        """

        def ask(asked: dict[str, object]) -> dict[str, object]:
            return self.dispatch.ask(asked)

        return gr.HTML(
            value,
            html_template=template(layout or f"{name}.html"),
            js_on_load=script(module, *events),
            apply_default_css=False,
            elem_id=name,
            server_functions=[ask],
            setup={"limits": page_limits(self), "about": self.about, **setup},
        )

    def endpoint(
        self,
        act: Callable[..., object],
        inputs: Sequence[gr.components.Component],
        label: str,
        queue: Mapping[str, Any] = CALLS,
    ) -> None:
        """Add the HTTP endpoint named after `act`; its components are never on screen."""

        @wraps(act)
        def answer(*given: object) -> object:
            try:
                return self.dispatch.run(lambda: act(*given))
            except QuestionError as error:
                raise gr.Error(str(error), print_exception=False) from error

        gr.Button(visible=False).click(
            answer,
            list(inputs),
            gr.JSON(label=label, visible=False),
            api_name=act.__name__,
            **queue,
        )


def page_limits(page: Page) -> Json:
    """Every bound that the scripts keep to, told by the server once."""
    from sae.adaptation.compare import MAX_WORDS
    from sae.ui import compare_desk, latents_desk, rack_desk, steer_desk

    has_index = page.index is not None
    usual, most = (3, 20) if has_index else (100, 10_000)
    return {
        "d_sae": page.catalogue.d_sae,
        "n_patches": page.concepts.limits.n_patches,
        "has_index": has_index,
        "has_summary": page.concepts.limits.has_summary,
        "rank": page.concepts.limits.rank,
        "mark": page.concepts.limits.mark,
        "other_sae": OTHER_SAE,
        "per_place": MAX_PER_PLACE,
        "icons": MAX_ICONS,
        "weak_share": WEAK_SHARE,
        "n_strong": N_STRONG,
        "upload_mb": MAX_UPLOAD,
        "gone": GONE,
        "upload_bytes": MAX_UPLOAD * 1024 * 1024,
        "objects": MAX_OBJECTS,
        "search_letters": latents_desk.MAX_TEXT,
        "prompt_letters": MAX_PROMPT,
        "start_letters": steer_desk.MAX_START,
        "word_letters": rack_desk.MAX_WORD,
        "new_tokens": steer_desk.MAX_WRITTEN,
        "usual_tokens": steer_desk.USUAL_WRITTEN,
        "edits": MAX_EDITS,
        "strength": usual,
        "strength_most": most,
        "samples": compare_desk.N_SAMPLES,
        "tried": compare_desk.MAX_TRIED,
        "off": compare_desk.MAX_OFF,
        "words_letters": MAX_WORDS,
        "own_name": MAX_NAME,
        "own_note": MAX_NOTE,
        "own_concepts": MAX_CONCEPTS,
    }


def colours() -> str:
    """The colour scale of every map, as the scripts read it."""
    return to_base64(lookup_table())


class SentFile(gr.File):
    """A file that the caller has sent. An address is refused: this server fetches nothing.

    Gradio shows what the constructor is told, so it has none of its own: see `sent_file`.
    """

    def get_block_name(self) -> str:
        return "file"

    async def async_move_resource_to_block_cache(
        self, url_or_file_path: str | Path | None
    ) -> str | None:
        path = uploaded_file(url_or_file_path)
        if path is None:
            raise gr.Error(
                "Send the picture itself: an address is not fetched.", print_exception=False
            )
        return str(path)

    def preprocess(self, payload: Any) -> str | None:
        """The upload's path; Gradio's own way leaves an empty file for every call."""
        return None if payload is None else str(payload.path)


def sent_file() -> SentFile:
    """The endpoints' first input, which is never on screen."""
    return SentFile(label="image", type="filepath", visible=False)


class LensName(gr.Textbox):
    """The name of a lens over HTTP; it may be left out, for that of the page. Without a constructor of
    its own, as `SentFile`."""

    may_lack = True

    def get_block_name(self) -> str:
        return "textbox"


def lens_name() -> LensName:
    """The last input of an endpoint that another lens can answer too; never on screen."""
    return LensName(label="lens", visible=False)


def sent_path(path: str | None, endpoint: str) -> str:
    """The path of a `SentFile`; ValueError with one sentence where none was sent."""
    if path is None:
        raise ValueError(f"send a picture: predict(handle_file(path), …, api_name='/{endpoint}')")
    return path
