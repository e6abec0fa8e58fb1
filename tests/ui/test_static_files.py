"""The page's own files: how scripts reach the page, and that templates and scripts are constants."""

import re

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from sae.ui.static_files import (
    FIRST_SCRIPTS,
    head,
    script,
    script_address,
    script_route,
    scripts,
    stylesheet,
    template,
)

IMPORT = re.compile(r'^import (?:\{[^}]*\} from )?"\./([\w.]+)";$', re.MULTILINE)
TEMPLATES = ("lens.html", "header.html", "about.html", "card.html")
TEMPLATES += ("latents.html", "steer.html", "compare.html")


def imported(name: str) -> set[str]:
    """A script and all that it imports."""
    found, waiting = set(), [name]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += IMPORT.findall(scripts()[one])
    return found


def test_scripts_are_served_below_any_path_and_kept_until_they_change():
    app = FastAPI(routes=[script_route()])
    outer = FastAPI()
    outer.mount("/a/space", app)
    for client, prefix in ((TestClient(app), "/"), (TestClient(outer), "/a/space/")):
        for name, text in scripts().items():
            answer = client.get(prefix + script_address(name))
            assert answer.status_code == 200
            assert answer.text == text
            assert answer.headers["content-type"].startswith("text/javascript")
            assert "immutable" in answer.headers["cache-control"]
    client = TestClient(app)
    old = client.get("/patchlens/000000000000/dom.js")
    assert (old.status_code, old.headers["cache-control"]) == (200, "no-store")
    for missing in ("/patchlens/1/none.js", "/patchlens/1/..%2Fstatic_files.py", "/patchlens/1/"):
        assert client.get(missing).status_code == 404


def test_a_component_imports_its_script_by_an_address_relative_to_the_page():
    text = script("steer.js", "write", "halt")
    assert f'new URL("{script_address("steer.js")}", document.baseURI)' in text
    assert not script_address("steer.js").startswith("/")
    assert '"write"' in text
    assert '"halt"' in text
    with pytest.raises(ValueError, match=r"no such script.*steer\.js"):
        script("steering.js")


def test_the_first_scripts_are_those_that_the_page_needs_when_it_opens():
    needed = set().union(*(imported(name) for name in ("header.js", "concepts.js", "card.js")))
    assert set(FIRST_SCRIPTS) == needed
    assert head().count("modulepreload") == len(needed)


def test_templates_and_scripts_are_constants_without_placeholders():
    for name in TEMPLATES:
        assert "${" not in template(name)
    assert "${" not in script("concepts.js", "open") + stylesheet()
    joined = "".join(scripts().values())
    assert re.findall(r"\.(?:innerHTML|outerHTML)\b", joined) == ["." + "innerHTML"]
    known = r"https://huggingface\.co|http://www\.w3\.org/2000/svg"
    assert "http" not in re.sub(known, "", stylesheet() + joined)
