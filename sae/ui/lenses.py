"""The lenses of one server: what each is for, where it is, and what all of them share.

Knows names, addresses and who answers for which lens. Does not know models or how a page is built. A page is
about one lens; the first is at the server's root, each other one below its name.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from sae.concepts.fit import Fit, Look
from sae.ui.dispatch import Json, Turns
from sae.ui.uploads import Uploads

if TYPE_CHECKING:
    from sae.ui.concepts_desk import ConceptsDesk


@dataclass(frozen=True)
class Lens:
    """A backbone with its SAE and its index, as people call it."""

    name: str
    """In addresses, on the command line and over HTTP."""
    title: str
    purpose: str
    """What it is for, in half a sentence."""


PHOTOS = Lens("photos", "Photographs", "what a photo classifier looks at in your pictures")
EMOJI = Lens("emoji", "Emoji world", "the laboratory where the truth is known")
CARRIED = {"photos": PHOTOS, "bundled": EMOJI}
"""Those that come along, by what `from_pretrained` calls them."""


@dataclass
class Lenses:
    """Every lens of a server, in the order of the switch; the first is at its root."""

    all: tuple[Lens, ...]
    turns: Turns = field(default_factory=Turns)
    uploads: Uploads = field(default_factory=Uploads)
    desks: "dict[str, ConceptsDesk]" = field(default_factory=dict)
    """Who answers for a lens, by its name; filled as the pages are built."""
    fits: dict[str, Fit] = field(default_factory=dict)
    """What is usual for the lenses of which that was measured."""

    def add(self, name: str, desk: "ConceptsDesk", fit: Fit | None) -> None:
        """A page is there: who answers for it, and what is usual for its pictures."""
        self.desks[name] = desk
        desk.judge = lambda look, image: self.judge(name, look, image)
        if fit is not None:
            self.fits[name] = fit

    def judge(self, here: str, look: Look, image: Image.Image) -> Json | None:
        """Whether a picture is foreign to the lens `here`: None, or one sentence, and the lens that fits
        better as `{name, title, address}`. Other lenses are asked only about foreign pictures."""
        fit = self.fits.get(here)
        if fit is None or not fit.is_outside(look):
            return None
        low, high = (round(100 * share) for share in fit.usual())
        explained = round(100 * (1 - look.unexplained))
        if look.unexplained > fit.most_unexplained:
            why = f"its concepts explain {explained} % of it, where {low} to {high} % is usual"
        else:
            why = "its concepts fire more weakly than is usual"
        said = (
            f"This picture is unlike those that this lens knows: {why}. Take its names as guesses."
        )
        better = next((lens for lens in self.all if self._fits(lens.name, here, image)), None)
        if better is None:
            return {"sentence": said, "other": None}
        up = "" if here == self.all[0].name else "../"
        other = {"name": better.name, "title": better.title}
        return {"sentence": said, "other": {**other, "address": self.address(better.name, up)}}

    def _fits(self, name: str, here: str, image: Image.Image) -> bool:
        """Whether a lens other than `here` knows such pictures."""
        if name == here or name not in self.fits or name not in self.desks:
            return False
        return not self.fits[name].is_outside(self.desks[name].look(image))

    def switch(self, here: str) -> list[Json]:
        """`[{name, title, purpose, address, here}]`, addresses relative to the page of `here`."""
        up = "" if here == self.all[0].name else "../"
        return [
            {
                "name": lens.name,
                "title": lens.title,
                "purpose": lens.purpose,
                "address": self.address(lens.name, up),
                "here": lens.name == here,
            }
            for lens in self.all
        ]

    def address(self, name: str, up: str = "") -> str:
        """Of a lens's page, from a page that lies `up` below the root; "./" for the root itself."""
        return (up or "./") if name == self.all[0].name else f"{up}{name}/"

    def desk(self, name: str | None, here: str) -> "ConceptsDesk":
        """Who answers for the lens `name`, that of the page `here` without one; ValueError with the
        names that there are."""
        desk = self.desks.get(name or here)
        if desk is None:
            there = ", ".join(f"'{one}'" for one in self.desks)
            raise ValueError(f"there is no such lens here; lens is one of {there}, or left out")
        return desk
