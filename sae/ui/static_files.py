"""The page's own files: templates, styles and scripts, and how the scripts reach the page.

Knows: file names in `static/`, and the URL the app serves the scripts at. Does not know: what they do.
Templates and scripts are constants: nothing that a visitor, a Hub repository or an index says is
ever put into them, because Gradio runs `${...}` inside templates and values as JavaScript. Text
reaches the page through `value` and `props`, and the scripts show it with textContent only.

The scripts are ES modules. A component's `js_on_load` imports one of them by an address relative to
the page, so that it works below any path. The address holds a hash of all scripts, so a browser
keeps a script until the app is updated.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

_FOLDER = Path(__file__).parent / "static"
_ADDRESS = "patchlens"
STYLES = (
    "colours.css",
    "page.css",
    "concepts.css",
    "card.css",
    "compose.css",
    "take.css",
    "latents.css",
    "steer.css",
    "classes.css",
    "compare.css",
    "own.css",
    "hints.css",
    "phone.css",
)
FIRST_SCRIPTS = (
    "header.js",
    "guide.js",
    "lenses.js",
    "afloat.js",
    "dom.js",
    "hints.js",
    "bus.js",
    "patience.js",
    "links.js",
    "notes.js",
    "notes_card.js",
    "notes_dialog.js",
    "notes_file.js",
    "take_concepts.js",
    "take_files.js",
    "take_menu.js",
    "take_picture.js",
    "beside.js",
    "misfits.js",
    "steps.js",
    "own_pictures.js",
    "own_tiles.js",
    "pictures.js",
    "rove.js",
    "sliders.js",
    "undo.js",
    "card.js",
    "code.js",
    "look.js",
    "overlay.js",
    "concepts.js",
    "concepts_compose.js",
    "concepts_leading.js",
    "concepts_list.js",
    "concepts_order.js",
    "concepts_sources.js",
    "concepts_stage.js",
    "exemplars.js",
)
"""What the page needs when it opens; the browser is told to fetch them at once."""
_LOADER = """\
// Events: %(events)s
let changed = false, hear = () => { changed = true; };
watch("value", () => hear());
import(new URL("%(address)s", document.baseURI)).then(({ start }) => {
  hear = start({ element, props, trigger, server, upload }) || (() => {});
  if (changed) hear();
});
"""


def template(name: str) -> str:
    """An HTML template; it holds no placeholder."""
    text = _read(name)
    if "${" in text or "{{" in text:
        raise ValueError(f"static/{name}: found a template placeholder, expected constant HTML")
    return text


def script(name: str, *events: str) -> str:
    """The `js_on_load` of a component: import the module `name` and call its `start`.

    `start` takes what Gradio hands to `js_on_load`, in one object, and may return what is to be
    called when the component's value changes. `events` are the events that the module triggers:
    Gradio offers only events whose names it finds in quotes in this text.
    """
    if name not in scripts():
        raise ValueError(f"static/{name}: no such script; there are {', '.join(scripts())}")
    named = ", ".join(f'"{event}"' for event in events)
    return _LOADER % {"events": named, "address": script_address(name)}


def script_address(name: str) -> str:
    """Where the app serves a script, relative to the page."""
    return f"{_ADDRESS}/{_version()}/{name}"


def script_route() -> "Route":
    """The route that serves the scripts: `launch(app_kwargs={"routes": [script_route()]})`.

    An address with another version, from a page that was opened before an update, gives the
    scripts of today and is not to be kept.
    """
    from starlette.responses import Response
    from starlette.routing import Route

    def answer(request: "Request") -> "Response":
        text = scripts().get(request.path_params["name"])
        if text is None:
            return Response(status_code=404)
        current = request.path_params["version"] == _version()
        keep = "public, max-age=31536000, immutable" if current else "no-store"
        return Response(text, media_type="text/javascript", headers={"Cache-Control": keep})

    return Route(f"/{_ADDRESS}/{{version}}/{{name}}", answer)


def head() -> str:
    """What the page's head holds: the styles, and which scripts to fetch at once.

    The styles go into the head, because Gradio rewrites the selectors of `css=`.
    """
    links = (f'<link rel="modulepreload" href="{script_address(name)}">' for name in FIRST_SCRIPTS)
    return "".join(links) + f"<style>{stylesheet()}</style>"


def stylesheet() -> str:
    """All styles of the page."""
    return "\n".join(_read(name) for name in STYLES)


@lru_cache(maxsize=1)
def scripts() -> dict[str, str]:
    """Every script of the page by name."""
    return {path.name: _read(path.name) for path in sorted(_FOLDER.glob("*.js"))}


@lru_cache(maxsize=1)
def _version() -> str:
    return hashlib.sha256("\0".join(scripts().values()).encode()).hexdigest()[:12]


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
