"""The Python that repeats what is on the screen, for each tab: library calls alone, every value a literal.

Knows what a tab asks and the library's names; runs nothing. What a visitor typed goes in through `repr`, so
that no text can become code. `sae.steering.edits.python_for` is the Steer tab's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sae.concepts.search import NameSearch
from sae.steering.edits import SteerRequest, as_python
from sae.ui.catalogue import ALWAYS
from sae.ui.dispatch import fields_of
from sae.ui.gallery import Gallery, of_index_python
from sae.ui.uploads import plain_name
from sae.views.code import MAX_PER_PLACE
from sae.world.scenes import scene_from_json, scene_to_json

OWN_NAMES = '# your own names: save them on the page, then index = index.with_notes("FILE.json")\n'
_SCENE = ("from PIL import Image", "from sae.world.scenes import compose, scene_from_json")


@dataclass(frozen=True)
class Models:
    """How the page's models are loaded."""

    sae: str
    backbone: str | None
    """None for the one that the SAE was made for."""
    has_index: bool

    def lines(self) -> str:
        """The lines that load them."""
        text = f"sae = SparseAutoencoder.from_pretrained({self.sae!r})\n"
        if self.backbone is None:
            text += "backbone = Backbone.of(sae.cfg.backbone)\n"
        else:
            text += f"backbone = Backbone.from_pretrained({self.backbone!r})\n"
        return text + f"index = ConceptIndex.from_pretrained({self.sae!r})\n" * self.has_index

    def imports(self) -> list[str]:
        """What these lines need."""
        index = "ConceptIndex, " * self.has_index
        return [f"from sae import Backbone, {index}SparseAutoencoder"]


@dataclass(frozen=True)
class Opened:
    """How a picture is opened."""

    expression: str
    imports: tuple[str, ...]
    comment: str = ""

    def line(self, name: str = "image") -> str:
        """`image = …`."""
        return f"{name} = {self.expression}{self.comment}\n"


def opened(request: object, gallery: Gallery | None = None) -> Opened:
    """The picture of a browser's `{kind, data}`; a file of the visitor's own has its name only.
    `gallery`: the page's examples (default: the emoji world's)."""
    fields = fields_of(request)
    kind, data = fields.get("kind"), fields.get("data")
    if kind == "example":
        return Opened(*(Gallery() if gallery is None else gallery).python(data))
    if kind == "exemplar" and type(data) is int:
        return Opened(*of_index_python(data))
    if kind == "scene":
        scene = scene_from_json(str(data)[:2000])
        return Opened(
            f"Image.fromarray(compose(scene_from_json({scene_to_json(scene)!r})).image)", _SCENE
        )
    if kind == "upload":
        name = plain_name(str(fields_of(data).get("name") or "picture.jpg"))
        return Opened(
            f"open_image({name!r})",
            ("from sae.images import open_image",),
            "  # your picture: where it lies on your computer",
        )
    if kind == "task" and isinstance(data, list) and len(data) == 3 and type(data[2]) is int:
        return _of_task(str(data[0]), str(data[1]), data[2])
    raise ValueError("open a picture first: the Python begins with it")


def _of_task(name: str, split: str, number: int) -> Opened:
    """Test picture `number` of a task, as the Compare tab draws it."""
    from sae.world.tasks import task

    n = len(task(name).classes(split))
    return Opened(
        f"task({name!r}).test({split!r}, {1 + number % n}, seed={number // n}).pictures()[-1]",
        ("from sae.world.tasks import task",),
    )


def concepts_code(
    models: Models,
    picture: Opened,
    *,
    patches: Sequence[int],
    rank: str,
    always: bool,
    cut: bool,
    pinned: Sequence[int],
    own_names: bool,
) -> str:
    """`rows`: the concepts of a picture, or of some patches, as they are listed."""
    of = f"patches[{list(patches)}]" if patches else "patches"
    how = "mean" if rank == "mean" else "amax"
    amounts = "latents[0]" if rank == "cls" and not patches else f"{of}.{how}(0)"
    body = picture.line() + "\n" + _latents(cut) + "patches = latents[view.patches]\n"
    body += f"amounts = {amounts}  # activation of every latent\n"
    body += "firing = amounts.nonzero().flatten()\n"
    body += "order = firing[amounts[firing].argsort(descending=True, stable=True)].tolist()\n"
    if models.has_index and not always:
        body += f"always_on = index.dense | (index.frequency >= {ALWAYS})\n"
        body += "order = [latent for latent in order if not always_on[latent]]\n"
    body += _pinned_first(pinned)
    if models.has_index:
        each = "(n, index.names[n], amounts[n].item(), float(index.frequency[n]))"
    else:
        each = "(n, amounts[n].item())"
    body += f"rows = [{each} for n in order]\n"
    body += "for row in rows:\n    print(*row)\n"
    more = ["from sae.backbones.tokens import TokenView"] + ["import torch"] * cut
    return _script(models, picture, more, OWN_NAMES * own_names + body)


@dataclass(frozen=True)
class TableView:
    """What the Latents tab lists, and in which order."""

    by: str
    """A statistic's name, "name", or "score" while something is searched for."""
    down: bool
    columns: tuple[str, ...]
    """Names of statistics."""
    named: bool = False
    alive: bool = False
    selective: bool = False
    here: Opened | None = None
    """The picture whose concepts alone are listed."""
    fenced: tuple[int, ...] | None = None
    text: str = ""
    like: Opened | None = None
    """The picture that was searched with."""
    like_patches: tuple[int, ...] | None = None
    meaning: bool = False
    most: int = 60
    """Concepts that a search by meaning or picture gives."""
    yours: tuple[int, ...] = ()
    """Concepts that the text found by names of the visitor's own."""
    named_by_you: tuple[int, ...] = ()
    pinned: tuple[int, ...] = ()
    only_pinned: bool = False


def latents_code(models: Models, view: TableView, *, own_names: bool) -> str:
    """`table`: the rows of the Latents tab as a pandas table, filtered and sorted as on the screen."""
    picture = view.like or view.here
    body = "table = index.to_pandas()\n" + _kept(view) + _found(view) + _order(view)
    body += f"columns = {['name', *view.columns]}\n"
    body += "for name in columns[1:]:  # unknown ones are NaN\n"
    body += "    table[name] = values_of(index, name)\n"
    body += "table = table.loc[list(order), columns]\nprint(table.head(40).to_string())\n"
    more = ["import numpy as np", "from sae.concepts.statistics import values_of"]
    if view.here is not None:
        more.append("from sae.backbones.tokens import TokenView")
    pictures = "" if picture is None else picture.line()
    return _script(models, picture, more, pictures + OWN_NAMES * own_names + body)


def compare_code(
    models: Models,
    picture: Opened,
    *,
    task: str,
    heads: tuple[str, str],
    split: str,
    classes: tuple[str, str] | None,
    words: str,
    off: Sequence[int],
) -> str:
    """`found`: two heads on a picture as the Compare tab explains them; `after`: with some switched off."""
    names = ", index.names" if models.has_index else ""
    body = picture.line() + f"\ncomparison = Comparison(backbone, sae{names})\n"
    if words:
        pair = [f"comparison.classifier({task!r}, {head!r}, {split!r})" for head in heads]
        body += f"pair = (\n    {pair[0]},\n    {pair[1]},\n)\n"
        body += f"found = comparison.match(image, {words!r}, pair)\n"
    else:
        chosen = f", classes={classes!r}" if classes else ""
        body += f"found = comparison.explain(\n    image, {task!r}, {heads!r}, split={split!r}{chosen}\n)\n"
    body += "for side in found.sides:  # start + shares + residual = score\n"
    body += "    print(side.classifier.name, side.predictions(1)[0].class_name, end=' ')\n"
    body += "    print(side.attribution.score, side.attribution.start, side.attribution.residual)\n"
    body += "for row in found.concepts[:40]:\n"
    body += "    print(row.latent, row.name, *row.shares, row.used_by)\n"
    if off:
        body += f"after = comparison.switched_off(found, {list(off)})\nprint(*after.scores)\n"
    return _script(models, picture, ["from sae.adaptation.compare import Comparison"], body)


def classes_code(models: Models, picture: Opened, request: SteerRequest) -> str:
    """`found`: what a classifier says of the picture, as it is and with the edits."""
    index = ", index=index" * models.has_index
    edits = "".join(f"    {as_python(edit)},\n" for edit in request.edits)
    body = picture.line() + f"\nsteerer = ClassSteerer(backbone, sae{index})\n"
    body += f"edits = [\n{edits}]\n" if edits else "edits = []\n"
    how = f"error_term={request.error_term}, control={bool(request.edits)}"
    body += f"found = steerer.classify(image, edits, {how})\n"
    body += "for row in found.top():\n    print(row.name, row.before, row.after, row.control)\n"
    more = ["from sae.steering import ClassSteerer, Edit, Scope"]
    return _script(models, picture, more, body)


def class_compare_code(
    models: Models, picture: Opened, classes: tuple[str, str] | None, off: Sequence[int]
) -> str:
    """`found`: one class against another as the Compare tab explains it; `after`: with some switched off."""
    names = ", index.names" * models.has_index
    chosen = f", {classes!r}" if classes else ""
    body = picture.line() + f"\ncomparison = ClassComparison(backbone, sae{names})\n"
    body += f"found = comparison.explain(image{chosen})\n"
    body += "parts = found.attribution  # start + shares + residual = score\n"
    body += "print(*found.classes, parts.score, parts.start, parts.residual)\n"
    body += "for row in found.concepts[:40]:\n    print(row.latent, row.name, row.share)\n"
    if off:
        body += f"after = comparison.switched_off(found, {list(off)})\nprint(after.score)\n"
    more = ["from sae.adaptation.class_compare import ClassComparison"]
    return _script(models, picture, more, body)


def _script(models: Models, picture: Opened | None, more: Sequence[str], body: str) -> str:
    lines = {*models.imports(), *more, *(picture.imports if picture else ())}
    bare = [line for line in lines if line.startswith("import")]
    text = "\n".join([*sorted(bare), *sorted(lines - set(bare))])
    return f"{text}\n\n{models.lines()}{body}"


def _latents(cut: bool) -> str:
    text = "view = TokenView(backbone, sae.cfg.backbone.tokens)\n"
    text += "x = view.read(backbone.activations([image], sae.cfg.backbone.layer))\n"
    text += "latents = sae.encode(x)[0].detach()  # (tokens, d_sae)\n"
    if cut:
        text += f"strongest = latents.topk({MAX_PER_PLACE})  # of every place, as on the page\n"
        text += (
            "latents = torch.zeros_like(latents).scatter(1, strongest.indices, strongest.values)\n"
        )
    return text


def _kept(view: TableView) -> str:
    text = ""
    if view.here is not None:
        text += _latents(False)
        text += "firing = (latents > 0).any(0).numpy()\n"
    parts = [
        ("table.index >= 0", True),
        ("~table.dead", view.alive),
        (f"~(table.dense | (table.frequency >= {ALWAYS}))", view.selective),
        ('(table.name != "")', view.named and not view.named_by_you),
        (f'((table.name != "") | table.index.isin({list(view.named_by_you)}))', view.named and
         bool(view.named_by_you)),
        ("firing", view.here is not None),
        (f"table.index.isin({list(view.pinned)})", view.only_pinned),
        (f"table.index.isin({list(view.fenced or ())})  # the lasso", view.fenced is not None),
    ]  # fmt: skip
    wanted = [part for part, on in parts if on]
    return text + f"kept = {wanted[0]}\n" + "".join(f"kept &= {part}\n" for part in wanted[1:])


def _found(view: TableView) -> str:
    """`chosen`: the numbers that are listed, in the search's order or rising."""
    if view.like is not None:
        patches = "" if view.like_patches is None else f", patches={list(view.like_patches)}"
        text = f"hits = index.searcher.like_image(image, {view.most}{patches}, backbone=backbone)\n"
        text += "found = [hit.latent for hit in hits]\n"
    elif view.text:
        yours = f"found = {list(view.yours)}  # by names of your own\n" if view.yours else ""
        text = yours or "found = []\n"
        text += f"for hit in index.searcher.by_name({view.text!r}, len(index)):\n"
        text += f"    if hit.score >= {NameSearch.LITERAL} and hit.latent not in found:\n"
        text += "        found.append(hit.latent)\n"
        if view.meaning:
            text += (
                f"hits = index.searcher.by_meaning({view.text!r}, {view.most}, backbone=backbone)\n"
            )
            text += "found += [hit.latent for hit in hits if hit.latent not in found]\n"
    else:
        return "chosen = np.flatnonzero(kept)\n"
    return text + "chosen = np.array([latent for latent in found if kept[latent]], int)\n"


def _order(view: TableView) -> str:
    searched = bool(view.text) or view.like is not None
    if searched and view.by == "score":
        return "order = chosen.tolist()\n" if view.down else "order = chosen[::-1].tolist()\n"
    text = "chosen.sort()\n" if searched else ""
    if view.by in ("name", "score"):
        down = ", reverse=True" if view.down else ""
        text += "order = sorted(chosen.tolist(), key=lambda n: "
        text += f'(index.names[n] == "", index.names[n].casefold()){down})\n'
    else:
        sign = "-" if view.down else ""
        text += f"values = values_of(index, {view.by!r})[chosen]\n"
        text += f'order = chosen[np.argsort({sign}values, kind="stable")].tolist()\n'
    return text if searched else text + _pinned_first(view.pinned)


def _pinned_first(pinned: Sequence[int]) -> str:
    if not pinned:
        return ""
    return (
        f"pinned = {list(pinned)}  # first in the list\norder.sort(key=lambda n: n not in pinned)\n"
    )
