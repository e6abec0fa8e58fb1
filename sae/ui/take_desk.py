"""What is taken away from the page and only the server knows: exact figures, and the Python of each tab.

Knows the catalogue, how the models are loaded, and what a browser may ask. Does not know: Gradio, models.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sae.adaptation.class_compare import ClassComparison
from sae.concepts.statistics import table
from sae.steering.classes import ClassSteerer
from sae.steering.edits import SteerRequest, python_for
from sae.ui import python_code
from sae.ui.compare_desk import MAX_OFF
from sae.ui.dispatch import Dispatch, Json, fields_of
from sae.ui.latents_desk import MAX_FOUND, MAX_TEXT
from sae.ui.links import RANKS
from sae.ui.python_code import Models, Opened, TableView

if TYPE_CHECKING:
    from sae.ui.page import Page

MAX_WORDS = 200
NOT_TAKEN = "This view cannot be written as Python. Reload the page and try again."


class TakeDesk:
    """Answers "take away" of every tab; immutable, shared by all visitors."""

    def __init__(self, page: "Page") -> None:
        vlm, sae = page.sources
        own = page.backbone.id == page.sae.cfg.backbone.id
        self.models = Models(sae, None if own else page.backbone.id, page.index is not None)
        self.of_classes = isinstance(page.steerer, ClassSteerer)
        self.gallery = page.concepts.gallery
        own_classes = isinstance(page.comparison, ClassComparison)
        self.class_names = tuple(page.backbone.classes) if own_classes else None
        self.vlm, self.catalogue, self.n_patches = (
            vlm,
            page.catalogue,
            page.concepts.limits.n_patches,
        )

    def offer(self, dispatch: Dispatch) -> None:
        """Answer `python` and `figures`."""
        dispatch.offer(model=False, python=self.python, figures=self.figures)

    def figures(self, fields: Json) -> Json:
        """`{names, guess, figures: {name: [value, …]}}` of `latents`, exactly as the index has them.

        Statistics have the index's names, not the page's short ones; None is unknown.
        """
        latents = self._latents(fields.get("latents"))
        names = {one.short: one.name for one in table()}
        return {
            "names": [self.catalogue.name(latent) for latent in latents],
            "guess": [self.catalogue.is_guess(latent) for latent in latents],
            "figures": {
                names[short]: [
                    None if value != value else value for value in values[latents].tolist()
                ]
                for short, values in self.catalogue.figures.items()
            },
        }

    def python(self, fields: Json) -> Json:
        """`{code}`: the script that repeats the view of `tab`."""
        tabs: dict[str, Callable[[Json], str]] = {
            "concepts": self._concepts,
            "latents": self._latents_table,
            "steer": self._steer,
            "compare": self._compare,
        }
        write = tabs.get(str(fields.get("tab")))
        if write is None:
            raise ValueError(NOT_TAKEN)
        return {"code": write(fields)}

    def _concepts(self, fields: Json) -> str:
        rank = str(fields.get("rank"))
        if rank not in RANKS:
            raise ValueError(NOT_TAKEN)
        return python_code.concepts_code(
            self.models,
            self._opened(fields.get("picture")),
            patches=self._patches(fields.get("patches")) or (),
            rank=rank,
            always=fields.get("always") is True,
            cut=fields.get("cut") is True,
            pinned=self._latents(fields.get("pinned") or []),
            own_names=fields.get("own_names") is True,
        )

    def _latents_table(self, fields: Json) -> str:
        on = fields_of(fields.get("filters"))
        names = {one.short: one.name for one in table() if one.short in self.catalogue.figures}
        by = str(fields.get("by"))
        if by not in (*names, "name", "score"):
            raise ValueError(NOT_TAKEN)
        fenced, like = fields.get("fenced"), fields.get("like")
        shown = [one for one in table() if one.column and one.short in names]
        view = TableView(
            by=names.get(by, by),
            down=fields.get("down") is True,
            columns=tuple(one.name for one in shown),
            named=on.get("named") is True,
            alive=on.get("alive") is True,
            selective=on.get("selective") is True,
            only_pinned=on.get("pinned") is True,
            here=self._opened(fields.get("picture")) if on.get("here") is True else None,
            fenced=None if fenced is None else tuple(self._latents(fenced)),
            text=str(fields.get("text") or "").strip()[:MAX_TEXT],
            like=None if like is None else self._opened(like),
            like_patches=self._patches(fields.get("like_patches")),
            meaning=fields.get("meaning") is True,
            most=MAX_FOUND,
            yours=tuple(self._latents(fields.get("yours") or [])),
            named_by_you=tuple(self._latents(fields.get("named_by_you") or [])),
            pinned=tuple(self._latents(fields.get("pinned") or [])),
        )
        return python_code.latents_code(
            self.models, view, own_names=fields.get("own_names") is True
        )

    def _steer(self, fields: Json) -> str:
        request = SteerRequest.from_json(fields.get("steer"))
        picture: Opened = self._opened(fields.get("picture"))
        if self.of_classes:
            return python_code.classes_code(self.models, picture, request)
        sae = self.models.sae
        return python_for(
            request,
            self.vlm,
            None if self.vlm == sae == "bundled" else sae,
            opened=picture.expression + picture.comment,
            imports=picture.imports,
        )

    def _compare(self, fields: Json) -> str:
        if self.class_names is not None:
            return self._compare_classes(fields, self.class_names)
        heads, classes = fields.get("heads"), fields.get("classes")
        if not isinstance(heads, list) or len(heads) != 2:
            raise ValueError(NOT_TAKEN)
        pair = classes if isinstance(classes, list) and len(classes) == 2 else None
        return python_code.compare_code(
            self.models,
            self._opened(fields.get("picture")),
            task=str(fields.get("task"))[:MAX_WORDS],
            heads=(str(heads[0])[:MAX_WORDS], str(heads[1])[:MAX_WORDS]),
            split=str(fields.get("split"))[:MAX_WORDS],
            classes=None if pair is None else (str(pair[0])[:MAX_WORDS], str(pair[1])[:MAX_WORDS]),
            words=str(fields.get("words") or "").strip()[:MAX_WORDS],
            off=self._latents(fields.get("off") or [])[:MAX_OFF],
        )

    def _opened(self, picture: object) -> Opened:
        return python_code.opened(picture, self.gallery)

    def _compare_classes(self, fields: Json, names: tuple[str, ...]) -> str:
        numbers = fields.get("classes")
        pair = numbers if isinstance(numbers, list) and len(numbers) == 2 else None
        if pair and not all(type(one) is int and 0 <= one < len(names) for one in pair):
            raise ValueError(NOT_TAKEN)
        return python_code.class_compare_code(
            self.models,
            self._opened(fields.get("picture")),
            None if pair is None else (names[pair[0]], names[pair[1]]),
            self._latents(fields.get("off") or [])[:MAX_OFF],
        )

    def _latents(self, asked: object) -> list[int]:
        numbers = asked if isinstance(asked, list) else None
        if numbers is None or len(numbers) > self.catalogue.d_sae:
            raise ValueError(NOT_TAKEN)
        if not all(map(self.catalogue.known, numbers)):
            raise ValueError(NOT_TAKEN)
        return numbers

    def _patches(self, asked: object) -> tuple[int, ...] | None:
        if asked is None:
            return None
        numbers = asked if isinstance(asked, list) else None
        if numbers is None or len(numbers) > self.n_patches:
            raise ValueError(NOT_TAKEN)
        if not all(type(one) is int and 0 <= one < self.n_patches for one in numbers):
            raise ValueError(NOT_TAKEN)
        return tuple(numbers)
