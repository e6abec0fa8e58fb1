"""The example pictures of a lens, and how they are kept beside its index.

Knows the emoji world's scenes, `examples/` of an artifact and the index's own copies. Does not know models.
The emoji world shows its scenes. Any other lens shows what lies in `examples/` beside its index, or else the
index's own pictures; an SAE without any shows the scenes, because there is nothing else to show.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from sae.concepts.concept import GUESS
from sae.errors import AGAIN, ArtifactError, ImageError
from sae.images import open_thumbnail
from sae.storage import read_sealed, write_sealed
from sae.ui.dispatch import Json
from sae.ui.examples import EXAMPLES, describe_scene, picture_of
from sae.views.pictures import data_uri, encode, thumbnail
from sae.world.scenes import Scene, scene_to_json

if TYPE_CHECKING:
    from sae.concepts.index import ConceptIndex
    from sae.ui.catalogue import Catalogue

FOLDER, LIST = "examples", "examples.json"
WORLD = "emoji world"
"""How the data set of an index over the emoji world is called, in the beginning."""
MOST = 16
"""Examples that are read of a folder, and N_OF_INDEX that an index gives."""
N_OF_INDEX = 11
_NAME = re.compile(r"[a-z][a-z-]{0,39}")


class Shown(NamedTuple):
    """An example: its name in links, its title, and where it is from: one of the three."""

    name: str
    title: str
    scene: Scene | None = None
    file: Path | None = None
    image_id: int | None = None


class Gallery:
    """The examples of one page; immutable."""

    def __init__(
        self, catalogue: "Catalogue | None" = None, own: Sequence[Shown] = (), *, world: bool = True
    ) -> None:
        """`own`: what `read_examples` found; `world`: whether the lens is of the emoji world."""
        self._catalogue = catalogue
        index = catalogue.index if catalogue is not None else None
        scenes = tuple(Shown(one.name, one.title, scene=one.scene) for one in EXAMPLES)
        of_world = index is None or index.data.startswith(WORLD)
        found = tuple(own) or (() if index is None or of_world else of_index(index))
        self.all: tuple[Shown, ...] = found or scenes
        self.composes = world or self.all is scenes
        """Whether scenes may be put together on this page."""
        self._by_name = {one.name: one for one in self.all}

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of the strip; the first is on screen at the start."""
        return tuple(self._by_name)

    def find(self, name: object) -> Shown:
        """The example of this name; ImageError for anything else."""
        shown = self._by_name.get(name) if isinstance(name, str) else None
        if shown is None:
            raise ImageError("There is no such example. Choose one from the strip.")
        return shown

    def picture(self, shown: Shown) -> tuple[Image.Image, str]:
        """An example as RGB, and what people are told who do not see it."""
        if shown.scene is not None:
            return picture_of(shown.scene), describe_scene(shown.scene)
        if shown.file is not None:
            return open_thumbnail(shown.file.read_bytes()), shown.title
        assert self._catalogue is not None
        return self._catalogue.picture(shown.image_id)[0], shown.title

    def strip(self) -> list[Json]:
        """Name, title and thumbnail of each."""
        return [
            {
                "name": shown.name,
                "title": shown.title,
                "thumbnail": data_uri(thumbnail(self.picture(shown)[0]), "webp"),
            }
            for shown in self.all
        ]

    def python(self, name: object) -> tuple[str, tuple[str, ...], str]:
        """The expression that opens an example, what it imports, and a comment."""
        shown = self.find(name)
        if shown.scene is not None:
            text = (
                f"Image.fromarray(compose(scene_from_json({scene_to_json(shown.scene)!r})).image)"
            )
            return text, _SCENE, ""
        if shown.file is not None:
            where = "  # an example of the page: where the SAE lies, in examples/"
            return f"open_image({shown.file.name!r})", ("from sae.images import open_image",), where
        return of_index_python(int(shown.image_id or 0))


_SCENE = ("from PIL import Image", "from sae.world.scenes import compose, scene_from_json")


def of_index_python(image_id: int) -> tuple[str, tuple[str, ...], str]:
    """The same for a picture that the index keeps."""
    line = "from sae.images import open_thumbnail"
    return f"open_thumbnail(index.thumbnail({image_id}))", (line,), ""


def of_index(index: "ConceptIndex") -> tuple[Shown, ...]:
    """The strongest exemplars of the concepts with the surest names, each name and picture once."""
    sure = np.asarray(index.name_confidences)
    usable = ~(np.asarray(index.dead) | np.asarray(index.dense) | np.asarray(index.rare))
    order = np.lexsort((-np.asarray(index.name_scores), -sure))
    found: dict[str, Shown] = {}
    taken: set[int] = set()
    for latent in order[usable[order]]:
        title = index.names[latent]
        name = slug(title)
        top = index.exemplars(int(latent))[:1]
        if sure[latent] < GUESS or not name or name in found or not top:
            continue
        number = int(top[0].image_id)
        if number in taken or not index.has_thumbnail(number):
            continue
        found[name] = Shown(name, title[:1].upper() + title[1:], image_id=number)
        taken.add(number)
        if len(found) == N_OF_INDEX:
            break
    return tuple(found.values())


def slug(title: str) -> str:
    """A title as links write it: small letters and hyphens."""
    return re.sub(r"[^a-z]+", "-", title.lower()).strip("-")[:40].strip("-")


def write_examples(sae: Path, pictures: Sequence[tuple[str, Image.Image, str]]) -> None:
    """Keep example pictures beside an SAE, in `sae`/examples: title, picture and whose it is."""
    folder = sae / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for title, image, credit in pictures:
        (folder / f"{slug(title)}.webp").write_bytes(encode(image.convert("RGB"), "webp", 82))
        rows.append({"name": slug(title), "title": title, "credit": credit})
    write_sealed(folder / LIST, {"examples": rows})


def read_examples(sae: Path) -> tuple[Shown, ...]:
    """What `write_examples` has kept beside an SAE; () where there is none, ArtifactError if damaged."""
    path = sae / FOLDER / LIST
    if not path.is_file():
        return ()
    rows = read_sealed(path).get("examples")
    found = []
    for row in rows[:MOST] if isinstance(rows, list) else ():
        name, title = (
            str(row.get(key)) if isinstance(row, dict) else "" for key in ("name", "title")
        )
        file = path.with_name(f"{name}.webp")
        if not _NAME.fullmatch(name) or not file.is_file():
            raise ArtifactError(path, f"an example {name[:40]!r}", "a name with its .webp", AGAIN)
        found.append(Shown(name, title[:60], file=file))
    return tuple(found)
