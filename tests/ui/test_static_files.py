"""The page's own files: how scripts reach the page, and that templates and scripts are constants."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from sae.adaptation.heads import HEADS
from sae.concepts.statistics import OURS as STATISTICS
from sae.ui import static_files
from sae.ui.links import RANKS
from sae.ui.static_files import (
    FIRST_SCRIPTS,
    STYLES,
    head,
    script,
    script_address,
    script_route,
    scripts,
    stylesheet,
    template,
)

IMPORT = re.compile(r'^import (?:\{[^}]*\} from )?"\./([\w.]+)";$', re.MULTILINE)
STATIC = Path(static_files.__file__).parent / "static"
COLOUR = re.compile(r"#[0-9a-fA-F]{3,8}\b|\b(?:rgb|hsl|hwb|lab|lch|oklab|oklch)a?\((?!\$)")
TEMPLATES = ("concepts.html", "header.html", "about.html", "card.html")
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


@pytest.mark.parametrize(
    "names",
    [list(HEADS), sorted({n for one in STATISTICS for n in (one.name, one.short)} - set(RANKS))],
)
def test_scripts_name_no_entry_of_a_table_that_the_server_tells_them(names):
    for script_name, text in scripts().items():
        if script_name in ("latents_places.js", "latents_words.js"):
            continue  # a map is called "frequency" too
        named = [n for n in names if re.search(rf"[\"'`]{n}[\"'`]|figures\.{n}\b", text)]
        assert not named, f"{script_name} names {named}"


def test_templates_and_scripts_are_constants_without_placeholders():
    for name in TEMPLATES:
        assert "${" not in template(name)
    assert "${" not in script("concepts.js", "open") + stylesheet()
    joined = "".join(scripts().values())
    assert re.findall(r"\.(?:innerHTML|outerHTML)\b", joined) == ["." + "innerHTML"]
    known = r"https://huggingface\.co|http://www\.w3\.org/2000/svg"
    assert "http" not in re.sub(known, "", stylesheet() + joined)


def selectors(name: str) -> list[str]:
    """Selectors of a stylesheet's rules, one by one, without those of its at-rules' own."""
    text = re.sub(r"/\*.*?\*/", "", (STATIC / name).read_text(encoding="utf-8"), flags=re.DOTALL)
    heads = re.findall(r"(?:^|[{};])([^{};]*)\{", text)
    lists = [" ".join(head.split()) for head in heads if not head.strip().startswith("@")]
    return [one.strip() for head in lists for one in re.split(r",(?![^(]*\))", head)]


def test_a_class_is_defined_in_one_stylesheet():
    """Elsewhere it may only be adapted, below a class of that stylesheet's own."""
    alone = re.compile(r"(?:\.pl )?\w*\.([\w-]+)(?:[:\[].*)?")
    homes = defaultdict(set)
    for name in STYLES:
        for selector in selectors(name):
            if (match := alone.fullmatch(selector)) and match[1].startswith("pl-"):
                homes[match[1]].add(name)
    assert "pl-panel" in homes
    assert "pl-compose-search" in homes
    assert {one: files for one, files in homes.items() if len(files) > 1} == {}


def test_colours_stand_in_one_file():
    files = {path.name: path.read_text(encoding="utf-8") for path in STATIC.iterdir()}
    assert set(STYLES) == {name for name in files if name.endswith(".css")}
    named = {name: COLOUR.findall(text) for name, text in files.items() if name.endswith("css")}
    assert named.pop("colours.css")
    assert {name: found for name, found in named.items() if found} == {}
    for name, text in scripts().items():
        assert not re.findall(r"[\"'`]#[0-9a-fA-F]{3,8}[\"'`]|\brgba?\((?!\$)", text), name
    used = set(re.findall(r"var\((--pl-[\w-]+)", "".join(files.values())))
    used |= {
        f"--pl-{one}"
        for text in scripts().values()
        for one in re.findall(r'olour\("([\w-]+)"\)', text)
    }
    defined = set(re.findall(r"(--pl-[\w-]+):", files["colours.css"] + files["page.css"]))
    assert used == defined


def test_no_line_is_longer_than_120_columns():
    for path in (*STATIC.glob("*.js"), *STATIC.glob("*.css")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert len(line) <= 120, f"{path.name}:{number}"


WRITES_FILES = {"notes_file.js"}
"""Whose strings are keys of files, in the library's words."""


def sentences() -> dict[str, list[str]]:
    """What may come on screen: texts of elements, hints, and strings of several words."""
    found: dict[str, list[str]] = {}
    for path in sorted(STATIC.glob("*.html")):
        text = path.read_text(encoding="utf-8")
        hints = re.findall(r'(?:title|placeholder|aria-label|alt)="([^"]*)"', text)
        found[path.name] = [*re.sub(r"<[^>]*>", "\n", text).split("\n"), *hints]
    for name, text in scripts().items():
        if name in WRITES_FILES:
            continue
        code = re.sub(r"^\s*//.*$|^import .*$", "", text, flags=re.MULTILINE)
        code = re.sub(r"\$\{[^{}]*\}", "…", code)
        strings = re.findall(r'"((?:[^"\\\n]|\\.)*)"|`([^`]*)`', code)
        shown = [one or other for one, other in strings]
        found[name] = [
            one for one in shown if " " in one and not re.search(r"[<>{}=#]|(^|\s)pl-", one)
        ]
    return found


def test_no_sentence_says_what_only_the_papers_call_so():
    """On screen it is a concept and a version, also in messages that hardly ever come up."""
    strange = re.compile(
        r"\b(latents?|heads?|recorded)\b|</s>|of the rack|no word fits", re.IGNORECASE
    )
    said = sentences()
    assert sum(map(len, said.values())) > 200
    assert {
        name: found
        for name, texts in said.items()
        if (found := [text for text in texts if strange.search(text)])
    } == {}
