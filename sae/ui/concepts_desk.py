"""Every way to open a picture, and the answer the screen gets for it.

Knows: examples, composed scenes, uploads and links, and how an answer is laid out in JSON.
Does not know: Gradio's events. Keeps nothing of a visitor between two calls.

What was found in visitors' own pictures is kept for a while by the content of the file; the pictures
themselves are not, only their files in the upload folder.
"""

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from sae.concepts.fit import Look, look_of
from sae.errors import ImageError
from sae.ui.analysis import Analysis, Analyst
from sae.ui.catalogue import Catalogue
from sae.ui.dispatch import Dispatch, Json, aside, fields_of
from sae.ui.examples import describe_scene, drawing_box, picture_of
from sae.ui.gallery import Gallery
from sae.ui.links import Limits, View, mark_of, parse_view, scene_code, scene_from_code
from sae.ui.uploads import Uploads
from sae.views.code import pack, to_base64
from sae.views.pictures import display_copy
from sae.views.ranking import rank
from sae.world.scenes import Scene, scene_from_json

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")
log = logging.getLogger(__name__)
MAX_ROWS = 64
"""Concepts that `/concepts` gives at most."""
NO_SCENE = "This scene could not be drawn. Change it and try again."
MAX_KEPT_BYTES = 32 * 1024**2
"""Answers for visitors' own pictures that are kept, so that a repeated picture costs nothing."""


class ConceptsDesk:
    """Answers the Concepts tab, and opens pictures for the others; shared by all visitors."""

    def __init__(
        self,
        analyst: Analyst,
        catalogue: Catalogue,
        uploads: Uploads | None = None,
        gallery: Gallery | None = None,
    ) -> None:
        self.analyst = analyst
        self.catalogue = catalogue
        self.uploads = Uploads() if uploads is None else uploads
        self._kept = KeptAnswers()
        self.gallery = Gallery(catalogue) if gallery is None else gallery
        self.judge: Callable[[Look, Image.Image], Json | None] = lambda _look, _image: None
        """Whether a picture is foreign, and to whom it is not; see `Lenses.judge`."""
        self._example = lru_cache(maxsize=len(self.gallery.names))(self._make_example)
        self.limits = Limits(
            examples=self.gallery.names,
            n_patches=analyst.n_patches,
            d_sae=analyst.sae.cfg.d_sae,
            has_summary=analyst.has_summary,
            rank="cls" if analyst.summary_only else "max",
            mark=mark_of(analyst.sae),
            has_exemplar=catalogue.has_picture,
        )

    def start(self) -> Json:
        """The example that the page opens with, whole."""
        opened = self._example(self.gallery.names[0])
        view = {**dict(opened["view"]), "rank": self.limits.rank}
        return {**opened, "view": view, "ticket": 0}

    def offer(self, dispatch: Dispatch) -> None:
        """Answer `open`, `composer`, `card` and `icons`."""
        dispatch.offer(open=self.open)
        dispatch.offer(
            model=False,
            composer=lambda _fields: drawing_box(),
            card=lambda fields: self.catalogue.card(fields.get("latent")),
            icons=lambda fields: {"icons": self.catalogue.icons(fields.get("latents"))},
        )

    def open(self, fields: Json) -> Json:
        """The picture of a browser's `{kind, data}` and its code."""
        kinds = {
            "example": self._open_example,
            "scene": self._open_scene,
            "code": self._open_code,
            "upload": self._open_file,
            "exemplar": self._open_exemplar,
        }
        kind = kinds.get(str(fields.get("kind")))
        if kind is None:
            raise ImageError("There is no such kind of picture. Reload the page.")
        return kind(fields.get("data"))

    def link(self, query: "Mapping[str, str]") -> Json:
        """The view that a link asks for, with clauses on what of it was left out.

        It says `linked`: Gradio tells the page of a value only if it differs from the one before.
        """
        view, ignored = parse_view(query, self.limits)
        if view.scene is not None:
            opened = self._scene(view.scene)
        elif view.exemplar is not None:
            opened = self._open_exemplar(view.exemplar)
        else:
            opened = self._example(view.example or self.gallery.names[0])
        shown = {"view": _view_json(view), "misfits": ignored}
        return {**opened, "ticket": 0, "linked": True, **shown}

    def picture(self, request: object) -> Image.Image:
        """The picture, upright and RGB, of a browser's `{kind, data}`; ImageError if it is gone."""
        fields = fields_of(request)
        kind, data = fields.get("kind"), fields.get("data")
        if kind == "example":
            return self.gallery.picture(self.gallery.find(data))[0]
        if kind == "scene":
            return picture_of(_scene_of(data))
        if kind == "code":
            return picture_of(_scene_of_code(data))
        if kind == "exemplar":
            return self.catalogue.picture(data)[0]
        if kind == "upload":
            return self.uploaded(fields_of(data).get("path"))
        raise ImageError("The picture is not known any more. Open one in the Concepts tab.")

    def uploaded(self, path: object) -> Image.Image:
        """An uploaded picture, decoded while others' questions are answered; ImageError if it is gone."""
        with aside():
            return self.uploads.open(path)

    def open_image(self, image: Image.Image) -> Json:
        """The answer for a visitor's own picture, upright and RGB."""
        return {**self._found_in(image), "picture": _on_screen(image, "Your picture")}

    def look(self, image: Image.Image) -> Look:
        """What the concepts make of a picture, in two numbers."""
        return self._look(self.analyst.analyse(image))

    def _look(self, analysis: Analysis) -> Look:
        n, code = self.analyst.n_patches, analysis.code
        if (
            self.analyst.summary_only
        ):  # what such an SAE says of patches is outside of what it learned
            return look_of(analysis.error[n:], analysis.total[n:], code.scale)
        here = code.place < n
        maxima = np.zeros(len(code.latents), np.float32)
        slots = code.slot[here].astype(np.int64)
        np.maximum.at(maxima, slots, code.value[here] / np.float32(255))
        maxima *= code.scale * ~self.catalogue.always_on[code.latents.astype(np.int64)]
        return look_of(analysis.error[:n], analysis.total[:n], maxima)

    def rows_of(self, path: object) -> list[Json]:
        """`rows` of an uploaded picture."""
        return self._kept.answer(
            f"rows {self.uploads.identify(path)[1]}", lambda: self.rows(self.uploaded(path))
        )

    def rows(self, image: Image.Image) -> list[Json]:
        """The concepts of a picture as `/concepts` gives them, strongest first."""
        ranked = rank(self.analyst.analyse(image).code, self.analyst.n_patches)
        triples = list(zip(*ranked, strict=True))[:MAX_ROWS]
        return [
            {
                "latent": int(latent),
                "name": self.catalogue.name(int(latent)),
                "activation": round(float(maximum), 5),
                "mean": round(float(mean), 6),
                "frequency": self.catalogue.frequency(int(latent)),
            }
            for latent, maximum, mean in triples
        ]

    def _open_example(self, data: object) -> Json:
        return self._example(self.gallery.find(data).name)

    def _make_example(self, name: str) -> Json:
        shown = self.gallery.find(name)
        own: Json = {"kind": "example", "name": name, "link": f"ex:{name}"}
        if shown.scene is not None:
            answer = self._scene(shown.scene)
            source = dict(answer["source"])
            return {**answer, "source": {**source, **own, "scene_link": source["link"]}}
        image, title = self.gallery.picture(shown)
        found = self._found(image, own)
        return {**found, "picture": _on_screen(image, title)}

    def _open_scene(self, data: object) -> Json:
        return self._scene(_scene_of(data))

    def _open_code(self, data: object) -> Json:
        return self._scene(_scene_of_code(data))

    def _scene(self, scene: Scene) -> Json:
        image = picture_of(scene)
        source = {"kind": "scene", "link": scene_code(scene), "scene": _scene_fields(scene)}
        shown = _on_screen(image, describe_scene(scene))
        return {**self._found(image, source), "picture": shown}

    def _open_exemplar(self, data: object) -> Json:
        image, caption = self.catalogue.picture(data)
        source = {"kind": "exemplar", "name": data, "link": f"ix:{data}"}
        found = self._found(image, source)
        return {**found, "picture": _on_screen(image, caption)}

    def _open_file(self, data: object) -> Json:
        path = fields_of(data).get("path")
        image = self.uploaded(path)
        found = self._kept.answer(
            f"open {self.uploads.identify(path)[1]}", lambda: self._found_in(image)
        )
        return {**found, "picture": _on_screen(image, "Your picture")}

    def _found_in(self, image: Image.Image) -> Json:
        """The answer for a visitor's own picture, without the picture."""
        return self._found(image, {"kind": "upload"})

    def _found(self, image: Image.Image, source: Json) -> Json:
        """The answer for a picture, without the picture."""
        analysis = self.analyst.analyse(image)
        foreign = self.judge(self._look(analysis), image)
        answer = self._lay_out(analysis, source)
        if foreign is not None:  # every name is a guess there
            names = [name and name.rstrip("?") + "?" for name in answer["concepts"]["names"]]
            answer["concepts"] = {**answer["concepts"], "names": names}
        return {**answer, "foreign": foreign}

    def _lay_out(self, analysis: Analysis, source: Json) -> Json:
        return {
            "source": source,
            "box": list(analysis.box),
            "grid": list(self.analyst.grid),
            "code": pack(analysis.code),
            "error": to_base64(analysis.error),
            "total": to_base64(analysis.total),
            "concepts": self.catalogue.describe(analysis.code),
            "leading": self.catalogue.leading(analysis.code, self.analyst.n_patches),
            "view": _view_json(View()),
            "misfits": [],
        }


class KeptAnswers:
    """Answers by what was asked, at most MAX_KEPT_BYTES as JSON; the ones unused for longest go."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size, self._lock = 0, threading.Lock()

    def answer(self, question: str, make: Callable[[], T]) -> T:
        """The answer to `question`: a kept one, or what `make` gives, which must be plain JSON."""
        with self._lock:
            kept = self._kept.get(question)
            if kept is not None:
                self._kept.move_to_end(question)
        if kept is not None:
            known: T = json.loads(kept)
            return known
        answer = make()
        kept = json.dumps(answer).encode()
        with self._lock:
            self._size += len(kept) - len(self._kept.pop(question, b""))
            self._kept[question] = kept
            while self._size > MAX_KEPT_BYTES:
                self._size -= len(self._kept.popitem(last=False)[1])
        return answer


def _on_screen(image: Image.Image, alt: str) -> Json:
    shown, (width, height) = display_copy(image)
    return {"src": shown, "width": width, "height": height, "alt": alt}


def _scene_of(data: object) -> Scene:
    try:
        return scene_from_json(data if isinstance(data, str) and len(data) < 2000 else "")
    except ValueError as error:
        log.info("a scene was refused: %s", error)
        raise ImageError(NO_SCENE) from error


def _scene_of_code(data: object) -> Scene:
    """The scene of a link's `sc:…`."""
    try:
        return scene_from_code(data if isinstance(data, str) else "")
    except ValueError as error:
        raise ImageError(NO_SCENE) from error


def _view_json(view: View) -> Json:
    return {
        "patches": list(view.patches),
        "concept": view.concept,
        "rank": view.rank,
        "scale": view.scale,
        "card": view.card,
    }


def _scene_fields(scene: Scene) -> Json:
    objects = [
        {"kind": o.kind, "style": o.style, "x": o.x, "y": o.y, "size": o.size, "angle": o.angle}
        for o in scene.objects
    ]
    return {"background": scene.background, "objects": objects, "seed": scene.seed}
