"""Every way to open a picture, and the answer the screen gets for it.

Knows: examples, composed scenes, uploads and links, and how an answer is laid out in JSON.
Does not know: Gradio's events. Keeps nothing of a visitor between two calls.
"""

import logging
from functools import lru_cache
from typing import TYPE_CHECKING

from PIL import Image

from sae.images import ImageError, open_image
from sae.ui.analysis import Analysis, Analyst
from sae.ui.catalogue import Catalogue
from sae.ui.examples import EXAMPLES, Example, describe_scene, picture_of, solve
from sae.ui.links import Limits, View, parse_view, scene_code
from sae.ui.uploads import uploaded_file
from sae.views.code import pack, to_base64
from sae.views.pictures import display_copy
from sae.world.scenes import Scene, scene_from_json

if TYPE_CHECKING:
    from collections.abc import Mapping

Answer = dict[str, object]
log = logging.getLogger(__name__)
UNEXPECTED = "This picture could not be analysed. Nothing else is affected: try another picture."


class Openings:
    """Answers requests to open a picture; immutable but for a cache of the example answers."""

    def __init__(self, analyst: Analyst, catalogue: Catalogue) -> None:
        self.analyst = analyst
        self.catalogue = catalogue
        self._examples = {example.name: example for example in EXAMPLES}
        self._example = lru_cache(maxsize=len(EXAMPLES))(self._make_example)
        self.limits = Limits(
            examples=tuple(self._examples),
            n_patches=analyst.n_patches,
            d_sae=analyst.sae.cfg.d_sae,
            has_summary=analyst.has_summary,
            rank="cls" if analyst.summary_only else "max",
        )

    def start(self) -> Answer:
        """The solved example that the page opens with."""
        opened = self._example(EXAMPLES[0].name)
        view = {**dict(opened["view"]), "rank": self.limits.rank}
        return {**opened, "view": view, "ticket": 0}

    def answer(self, request: object) -> Answer:
        """The answer to a browser's `{ticket, kind, data}`; `{"problem": sentence}` if it fails."""
        fields = request if isinstance(request, dict) else {}
        ticket = fields.get("ticket")
        ticket = ticket if isinstance(ticket, int) else 0
        ways = {"example": self._open_example, "scene": self._open_scene, "upload": self._open_file}
        way = ways.get(str(fields.get("kind")))
        if way is None:
            return {"ticket": ticket, "problem": "This request is not understood. Reload the page."}
        try:
            return {**way(fields.get("data")), "ticket": ticket}
        except ImageError as error:
            return {"ticket": ticket, "problem": str(error)}
        except Exception:
            log.exception("a picture could not be analysed")
            return {"ticket": ticket, "problem": UNEXPECTED}

    def link(self, query: "Mapping[str, str]") -> Answer:
        """The view that a link asks for, with sentences on what of it was left out.

        It says `linked`: Gradio tells the page of a value only if it differs from the one before.
        """
        view, ignored = parse_view(query, self.limits)
        if view.scene is not None:
            opened = self._scene(view.scene)
        else:
            opened = self._example(view.example or EXAMPLES[0].name)
        asked = any(key in query for key in ("img", "p", "z"))
        shown = _view_json(view) if asked and not _only_failed(view, ignored) else opened["view"]
        shown = {**dict(shown), "rank": view.rank, "scale": view.scale, "card": view.card}
        return {**opened, "ticket": 0, "linked": True, "view": shown, "notes": ignored}

    def picture(self, request: object) -> Image.Image:
        """The picture, upright and RGB, of a browser's `{kind, data}`; ImageError if it is gone."""
        fields = request if isinstance(request, dict) else {}
        kind, data = fields.get("kind"), fields.get("data")
        if kind == "example" and isinstance(data, str) and data in self._examples:
            return picture_of(self._examples[data].scene)
        if kind == "scene":
            return picture_of(_scene_of(data))
        if kind == "upload":
            return open_image(_upload_of(data))
        raise ImageError("The picture is not known any more. Open one in the Concepts tab.")

    def open_image(self, image: Image.Image) -> Answer:
        """The answer for a visitor's own picture, upright and RGB."""
        return self._lay_out(image, self.analyst.analyse(image), {"kind": "upload"}, "Your picture")

    def read(self, path: str) -> Analysis:
        """The analysis of a picture file; ImageError with one sentence if it is none."""
        return self.analyst.analyse(open_image(path))

    def _open_example(self, data: object) -> Answer:
        if not isinstance(data, str) or data not in self._examples:
            raise ImageError("There is no such example. Choose one from the strip.")
        return self._example(data)

    def _make_example(self, name: str) -> Answer:
        example: Example = self._examples[name]
        answer = self._scene(example.scene)
        source = {
            **dict(answer["source"]),
            "kind": "example",
            "name": name,
            "link": f"ex:{name}",
        }
        return {**answer, "source": source}

    def _open_scene(self, data: object) -> Answer:
        return self._scene(_scene_of(data))

    def _scene(self, scene: Scene) -> Answer:
        image = picture_of(scene)
        analysis = self.analyst.analyse(image)
        source = {"kind": "scene", "link": scene_code(scene), "scene": _scene_fields(scene)}
        answer = self._lay_out(image, analysis, source, describe_scene(scene))
        known = answer["concepts"]
        patch, concept = solve(
            scene, analysis.code, self.analyst.grid, known["names"], known["dense"]
        )
        view = View(patches=(patch,) if scene.objects else (), concept=concept)
        return {**answer, "view": _view_json(view)}

    def _open_file(self, data: object) -> Answer:
        return self.open_image(open_image(_upload_of(data)))

    def _lay_out(self, image: Image.Image, analysis: Analysis, source: Answer, alt: str) -> Answer:
        shown, (width, height) = display_copy(image)
        return {
            "source": source,
            "picture": {"src": shown, "width": width, "height": height, "alt": alt},
            "box": list(analysis.box),
            "grid": list(self.analyst.grid),
            "code": pack(analysis.code),
            "error": to_base64(analysis.error),
            "total": to_base64(analysis.total),
            "concepts": self.catalogue.describe(analysis.code),
            "view": _view_json(View()),
            "notes": [],
        }


def _scene_of(data: object) -> Scene:
    try:
        return scene_from_json(data if isinstance(data, str) and len(data) < 2000 else "")
    except ValueError as error:
        log.info("a scene was refused: %s", error)
        raise ImageError("This scene could not be drawn. Change it and try again.") from error


def _upload_of(data: object) -> str:
    path = uploaded_file(data.get("path") if isinstance(data, dict) else None)
    if path is None:
        raise ImageError("The picture did not arrive. Try to send it again.")
    return str(path)


def _view_json(view: View) -> Answer:
    return {
        "patches": list(view.patches),
        "concept": view.concept,
        "rank": view.rank,
        "scale": view.scale,
        "card": view.card,
    }


def _only_failed(view: View, ignored: list[str]) -> bool:
    """Whether nothing of the link could be kept."""
    return bool(ignored) and view == View()


def _scene_fields(scene: Scene) -> Answer:
    objects = [
        {"kind": o.kind, "style": o.style, "x": o.x, "y": o.y, "size": o.size, "angle": o.angle}
        for o in scene.objects
    ]
    return {"background": scene.background, "objects": objects, "seed": scene.seed}
