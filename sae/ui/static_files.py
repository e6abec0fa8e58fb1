"""The page's own files: templates, styles and scripts, read once.

Knows: file names in `static/`. Does not know: what they do.
Templates and scripts are constants: nothing that a visitor, a Hub repository or an index says is
ever put into them, because Gradio runs `${...}` inside templates and values as JavaScript. Text
reaches the page through `value` and `props`, and the scripts show it with textContent only.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent / "static"
LENS_SCRIPTS = (
    "dom.js",
    "state.js",
    "code.js",
    "heat.js",
    "list.js",
    "link.js",
    "stage.js",
    "card.js",
    "sources.js",
    "compose.js",
    "main.js",
)
"""In this order they share one function scope."""
STYLES = ("page.css", "lens.css", "card.css", "compose.css")


def template(name: str) -> str:
    """An HTML template; it holds no placeholder."""
    text = _read(name)
    if "${" in text or "{{" in text:
        raise ValueError(f"static/{name}: found a template placeholder, expected constant HTML")
    return text


def script(*names: str) -> str:
    """Scripts joined into one function body."""
    return "\n".join(_read(name) for name in names)


def stylesheet() -> str:
    """All styles of the page."""
    return "\n".join(_read(name) for name in STYLES)


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
