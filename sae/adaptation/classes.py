"""Class names and prompt templates: what is accepted, and why not. Knows strings only."""

from collections.abc import Sequence

MAX_CLASSES = 2000


def checked_classes(names: Sequence[str]) -> tuple[str, ...]:
    """The class names, stripped; ValueError unless they are two or more, none empty, none twice.

    Any script is welcome here; whether a text tower knows the words is for its tokenizer to say.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"expected a list of class names, got {names!r:.80}")
    found = tuple(" ".join(name.split()) for name in names)
    if len(found) < 2:
        raise ValueError(
            f"got {len(found)} class{'es'[: 2 * (len(found) != 1)]} {list(found)}, expected two or "
            "more: with one class there is nothing to decide"
        )
    if len(found) > MAX_CLASSES:
        raise ValueError(f"got {len(found)} classes, at most {MAX_CLASSES} are taken at once")
    if empty := [number for number, name in enumerate(found) if not name]:
        raise ValueError(f"class number {empty[0]} has an empty name; give every class a name")
    seen: dict[str, str] = {}
    for name in found:
        twin = seen.setdefault(name.casefold(), name)
        if twin is not name:
            raise ValueError(
                f"class names {twin!r} and {name!r} are the same; give every class a name of its own"
            )
    return found


def checked_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Prompt templates with one "{}" each, for the class name; ValueError otherwise."""
    if isinstance(templates, str) or not templates:
        raise ValueError(f"expected a list of one or more templates, got {templates!r:.80}")
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise ValueError(
                f"template {template!r:.80} needs exactly one {{}}, where the class name goes, as in "
                '"a photo of a {}."'
            )
    return tuple(templates)
