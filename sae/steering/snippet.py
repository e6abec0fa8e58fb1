"""The Python that repeats a steering request. Knows requests; runs nothing."""

from sae.steering.edits import EVERYWHERE, Edit, SteerRequest


def python_for(
    request: SteerRequest,
    model: str = "bundled",
    sae: str | None = None,
    image: str = "picture.png",
) -> str:
    """A script of a few lines that asks the same; every value is written as a literal."""
    loaded = repr(model) if sae is None else f"{model!r}, {sae!r}"
    edits = "".join(f"    {_edit(edit)},\n" for edit in request.edits)
    start = f", answer_start={request.answer_start!r}" if request.answer_start else ""
    return (
        "from sae import Steerer\n"
        "from sae.images import open_image\n"
        "from sae.steering import Edit, Scope\n\n"
        f"steerer = Steerer.from_pretrained({loaded})\n"
        f"prepared = steerer.prepare(open_image({image!r}), {request.prompt!r}{start})\n"
        f"edits = [\n{edits}]\n"
        "captions = steerer.generate(\n"
        f"    prepared, edits=edits, error_term={request.error_term}, "
        f"max_new_tokens={request.max_new_tokens}\n"
        ")\n"
        'print(captions.original, captions.steered, sep="\\n")\n'
    )


def _edit(edit: Edit) -> str:
    scope = edit.scope
    text = f"Edit({edit.latent}, {edit.mode!r}, {edit.strength!r}, {edit.units!r}"
    if scope == EVERYWHERE:
        return f"{text})"
    place = f"{scope.where!r}"
    place += f", patches={scope.patches!r}" if scope.patches else ""
    place += f", box={scope.box!r}" if scope.box is not None else ""
    place += f", above={scope.above!r}" if scope.above is not None else ""
    return f"{text}, Scope({place}))"
