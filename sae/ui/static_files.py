"""The page's own files: templates, styles and scripts, read once.

Knows: file names in `static/`. Does not know: what they do.
Templates and scripts are constants: nothing that a visitor, a Hub repository or an index says is
ever put into them, because Gradio runs `${...}` inside templates and values as JavaScript. Text
reaches the page through `value` and `props`, and the scripts show it with textContent only.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent / "static"
SHARED_SCRIPTS = ("bus.js", "dom.js", "link.js")
"""What every component of the page starts with."""
CARD_SCRIPTS = (*SHARED_SCRIPTS, "card.js", "tabs.js")
LATENTS_SCRIPTS = (
    *SHARED_SCRIPTS,
    "decode.js",
    "latents_data.js",
    "latents_map.js",
    "latents_list.js",
    "latents.js",
)
STEER_SCRIPTS = (
    *SHARED_SCRIPTS,
    "steer_state.js",
    "steer_rack.js",
    "steer_answers.js",
    "steer_picture.js",
    "steer.js",
)
COMPARE_SCRIPTS = (
    *SHARED_SCRIPTS,
    "decode.js",
    "compare_explain.js",
    "compare_task.js",
    "compare.js",
)
LENS_SCRIPTS = (
    *SHARED_SCRIPTS,
    "decode.js",
    "state.js",
    "code.js",
    "heat.js",
    "list.js",
    "stage.js",
    "sources.js",
    "compose.js",
    "main.js",
)
"""In this order they share one function scope."""
STYLES = (
    "page.css",
    "lens.css",
    "card.css",
    "compose.css",
    "latents.css",
    "steer.css",
    "compare.css",
)


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
