"""The Python that is taken away, run word for word: it gives what the screen shows. And exact figures."""

import ast
import io
from contextlib import redirect_stdout

import numpy as np
import pytest

from sae import Steerer
from sae.adaptation.compare import Comparison
from sae.concepts.statistics import table
from sae.steering.edits import SteerRequest
from sae.ui.analysis import Analyst
from sae.ui.catalogue import Catalogue
from sae.ui.compare_desk import CompareDesk
from sae.ui.concepts_desk import ConceptsDesk
from sae.ui.dispatch import Dispatch
from sae.ui.identity import public_name
from sae.ui.latents_desk import LatentsDesk
from sae.ui.page import Page
from sae.ui.take_desk import TakeDesk
from sae.views.code import to_dense, unpack
from sae.world.scenes import Scene, SceneObject, compose

TIGER = {"kind": "example", "data": "tiger"}
HOSTILE = "it's \"fine\"'); import os; os.remove('x') #\n\\"


@pytest.fixture(scope="module")
def steerer() -> Steerer:
    return Steerer.from_pretrained("bundled")


@pytest.fixture(scope="module")
def page(steerer) -> Page:
    analyst = Analyst(steerer.backbone, steerer.sae)
    catalogue = Catalogue(steerer.index, steerer.sae.cfg.d_sae, analyst.grid)
    concepts = ConceptsDesk(analyst, catalogue)
    models = (None, steerer.backbone, steerer.sae, steerer.index, None)
    made = Page(*models, catalogue, concepts, comparison=Comparison(steerer.backbone, steerer.sae))
    for desk in (concepts, LatentsDesk(steerer.backbone, concepts, catalogue), TakeDesk(made)):
        desk.offer(made.dispatch)
    return made


def ask(page: Page, **asked: object) -> dict:
    answer = page.dispatch.ask(asked)
    assert "problem" not in answer, answer
    return answer


def run(page: Page, **asked: object) -> dict:
    """What the script that the page gives leaves behind."""
    code = ask(page, way="python", **asked)["code"]
    names: dict = {}
    with redirect_stdout(io.StringIO()):
        exec(compile(code, "taken.py", "exec"), names)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["max", "mean", "cls"])
@pytest.mark.parametrize("patches", [[], [40, 41, 52, 53]])
def test_concepts_are_those_of_the_screen(page, rank, patches):
    shown = ask(page, way="open", kind="example", data="tiger")
    dense = to_dense(unpack(shown["code"]), page.catalogue.d_sae)
    cells = dense[:144][patches] if patches else dense[:144]
    amounts = cells.mean(0) if rank == "mean" else cells.max(0)
    amounts = dense[144] if rank == "cls" and not patches else amounts
    rows = run(page, tab="concepts", picture=TIGER, patches=patches, rank=rank)["rows"]
    latents = [row[0] for row in rows]
    expected = np.flatnonzero((amounts > 0) & ~page.catalogue.always_on)
    assert set(latents) == set(expected.tolist())
    values = np.array([row[2] for row in rows])
    tolerance = dense.max(0)[latents] / 500 + 1e-6  # the screen's are kept in eight bits
    assert (np.abs(values - amounts[latents]) <= tolerance).all()
    assert (np.diff(values) <= 0).all()
    assert [row[1] for row in rows] == [page.catalogue.name(n) for n in latents]


@pytest.mark.slow
def test_ones_own_picture_is_a_file_to_fill_in_and_pins_come_first(page, tmp_path, monkeypatch):
    from PIL import Image

    picture = Image.fromarray(compose(Scene("sand", (SceneObject("cat"),), 4)).image)
    monkeypatch.chdir(tmp_path)
    picture.save("my cat, 2026.png")
    request = {"kind": "upload", "data": {"path": "/tmp/x", "name": "my cat, 2026.png"}}
    asked = {"tab": "concepts", "picture": request, "patches": [], "rank": "max", "always": True}
    code = ask(page, way="python", **asked)["code"]
    assert "open_image('my cat_ 2026.png')  # your picture" in code
    (tmp_path / "my cat, 2026.png").rename("my cat_ 2026.png")
    rows = run(page, **asked)["rows"]
    dense = to_dense(unpack(page.concepts.open_image(picture)["code"]), page.catalogue.d_sae)
    assert {row[0] for row in rows} == set(np.flatnonzero(dense[:144].max(0)).tolist())
    last = rows[-1][0]
    again = run(page, **asked, pinned=[last], own_names=True)
    assert [row[0] for row in again["rows"][:2]] == [last, rows[0][0]]


def order(page: Page, **asked: object) -> list[int]:
    view = {"by": "frequency", "down": True, "filters": {}, **asked}
    return run(page, tab="latents", **view)["table"].index.tolist()


@pytest.mark.slow
def test_the_table_is_filtered_and_sorted_as_on_the_screen(page):
    index = page.index
    often, always = np.asarray(index.frequency, float), page.catalogue.always_on
    kept = [n for n in range(len(index)) if not index.dead[n] and not always[n] and index.names[n]]
    falling = sorted(kept, key=lambda n: (-often[n], n))
    filters = {"alive": True, "selective": True, "named": True}
    assert order(page, filters=filters, by=by_short("frequency")) == falling
    assert order(page, filters=filters, by=by_short("frequency"), down=False) == sorted(
        kept, key=lambda n: (often[n], n)
    )
    fence = falling[5:9]
    assert order(page, filters=filters, fenced=fence, by="name", down=False) == sorted(
        fence, key=lambda n: (index.names[n].casefold(), n)
    )
    here = page.dispatch.ask({"way": "open", **TIGER, "kind": "example", "data": "tiger"})
    fires = set(unpack(here["code"]).latents.tolist())
    assert set(order(page, filters={"here": True}, picture=TIGER)) == fires
    assert order(page, pinned=[7, 3], filters={"pinned": True}) == sorted(
        [3, 7], key=lambda n: -often[n]
    )
    assert order(page, filters=filters, pinned=falling[-1:])[:2] == [falling[-1], falling[0]]


def by_short(name: str) -> str:
    return next(one.short for one in table() if one.name == name)


@pytest.mark.slow
def test_a_search_finds_the_same_in_the_same_order(page):
    found = ask(page, way="search", text="tiger")["found"]
    named = [h.latent for h in page.index.searcher.by_name("tiger", 9999) if h.score >= 0.7]
    expected = named + [n for n, _ in found if n not in named]
    assert order(page, by="score", text="tiger", meaning=True) == expected
    assert order(page, by="score", down=False, text="tiger", meaning=True) == expected[::-1]
    assert order(page, by="score", text="tiger", yours=[2]) == [2, *[n for n in named if n != 2]]
    like = ask(page, way="search", picture=TIGER, patches=[40, 41])["found"]
    asked = {"by": "score", "like": TIGER, "like_patches": [40, 41]}
    assert order(page, **asked) == [n for n, _ in like]


@pytest.mark.slow
def test_a_comparison_gives_the_same_shares_and_predictions(page):
    desk = CompareDesk(page.comparison, page.concepts, page.catalogue)
    sample = desk._sample_json({"task": "fluent", "split": "base", "number": 61})
    asked = {"task": "fluent", "split": "base", "heads": ["zero_shot", "maple"]}
    asked |= {"picture": sample["request"], "classes": None, "words": ""}
    shown = desk._explain_json(asked)
    off = [row["latent"] for row in shown["concepts"][:2]]
    names = run(page, tab="compare", off=off, **asked)
    found = names["found"]
    assert [row.latent for row in found.concepts[:40]] == [r["latent"] for r in shown["concepts"]]
    for row, other in zip(found.concepts, shown["concepts"], strict=False):
        assert row.shares == pytest.approx(other["shares"], abs=1e-5)
    for side, head in zip(found.sides, shown["heads"], strict=True):
        assert side.attribution.residual == pytest.approx(head["residual"], abs=1e-5)
        assert side.predictions(1)[0].class_name == head["predictions"][0]["class"]
    after = desk._off_json({**asked, "off": off})
    assert names["after"].scores == pytest.approx(after["scores"], abs=1e-5)
    words = run(page, tab="compare", **{**asked, "words": "a tiger on grass", "picture": TIGER})
    match = desk._explain_json({**asked, "words": "a tiger on grass", "picture": TIGER})
    assert words["found"].sides[0].attribution.score == pytest.approx(match["heads"][0]["margin"])


@pytest.mark.slow
def test_steering_gives_the_same_answers(page, steerer):
    steer = {"prompt": "describe the image", "max_new_tokens": 8}
    steer["edits"] = [{"latent": 1502, "mode": "set", "strength": 2.0, "units": "max"}]
    names = run(page, tab="steer", picture=TIGER, steer=steer)
    request = SteerRequest.from_json(steer)
    prepared = steerer.prepare(page.concepts.picture(TIGER), request.prompt)
    *_, last = steerer.stream(prepared, request, control=False)
    assert (names["captions"].original, names["captions"].steered) == (last.original, last.steered)


def test_what_a_visitor_typed_never_becomes_code(page):
    request = {"kind": "upload", "data": {"name": HOSTILE}}
    steer = {"prompt": HOSTILE, "edits": []}
    scripts = [
        {"tab": "steer", "picture": request, "steer": steer},
        {"tab": "concepts", "picture": request, "patches": [], "rank": "max"},
        {"tab": "latents", "by": "name", "filters": {}, "text": HOSTILE, "like": request},
        {"tab": "latents", "by": "score", "filters": {}, "text": HOSTILE, "meaning": True},
        {"tab": "compare", "picture": request, "task": HOSTILE, "heads": [HOSTILE, HOSTILE],
         "split": HOSTILE, "classes": [HOSTILE, HOSTILE], "words": ""},
        {"tab": "compare", "picture": request, "task": "fluent", "heads": ["a", "b"],
         "split": "base", "words": HOSTILE},
    ]  # fmt: skip
    for asked in scripts:
        tree = ast.parse(ask(page, way="python", **asked)["code"])
        called = {n.func.attr for n in ast.walk(tree)
                  if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}  # fmt: skip
        assert "remove" not in called
        modules = {
            alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
        }
        assert modules <= {"torch", "numpy"}


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"tab": "about"},
        {"tab": "concepts", "picture": None, "patches": [], "rank": "max"},
        {"tab": "concepts", "picture": TIGER, "patches": [144], "rank": "max"},
        {"tab": "concepts", "picture": TIGER, "patches": [True], "rank": "max"},
        {"tab": "concepts", "picture": TIGER, "patches": "0", "rank": "max"},
        {"tab": "concepts", "picture": TIGER, "patches": [], "rank": "best"},
        {"tab": "concepts", "picture": {"kind": "example", "data": "none"}, "rank": "max"},
        {"tab": "latents", "by": "beauty"},
        {"tab": "latents", "by": "name", "fenced": [-1]},
        {"tab": "latents", "by": "name", "pinned": list(range(2049))},
        {"tab": "compare", "picture": TIGER, "heads": ["one"]},
        {"tab": "compare", "picture": {"kind": "task", "data": ["no", "base", 1]}, "heads": [1, 2]},
        {"tab": "steer", "picture": TIGER, "steer": {"edits": [{"latent": "x"}]}},
    ],
)
def test_what_no_view_can_be_is_refused_in_a_sentence(page, asked):
    answer = page.dispatch.ask({"way": "python", **asked})
    assert set(answer) == {"problem"}
    assert answer["problem"].endswith((".", "?"))


def test_figures_are_those_of_the_index_and_unknown_ones_are_null(page):
    latents = [3, 1502, 7]
    answer = ask(page, way="figures", latents=latents)
    assert answer["names"] == [page.index.names[n] for n in latents]
    assert answer["guess"] == [page.catalogue.is_guess(n) for n in latents]
    assert answer["figures"]["frequency"] == [float(page.index.frequency[n]) for n in latents]
    unknown = [
        value for values in ask(page, way="figures", latents=list(range(2048)))["figures"].values()
        for value in values if value is not None and value != value
    ]  # fmt: skip
    assert unknown == []
    for bad in (None, [2048], ["1"], [0] * 2049):
        assert "problem" in page.dispatch.ask({"way": "figures", "latents": bad})


def test_without_an_index_there_are_numbers(page):
    bare = Page(
        None, page.backbone, page.sae, None, None, Catalogue(None, 2048, (12, 12)), page.concepts
    )
    dispatch = Dispatch()
    TakeDesk(bare).offer(dispatch)
    code = dispatch.ask({"way": "python", "tab": "concepts", "picture": TIGER, "rank": "max"})[
        "code"
    ]
    assert "ConceptIndex" not in code
    assert dispatch.ask({"way": "figures", "latents": [1]}) == {
        "names": [""], "guess": [False], "figures": {}
    }  # fmt: skip


def test_a_path_of_the_server_is_told_by_its_last_part_alone():
    told = [
        "bundled",
        "user/name",
        "preset:saev/x",
        "/home/me/runs/one/",
        "../one",
        "C:\\runs\\one",
        "a/b/c",
    ]
    assert [public_name(name) for name in told] == [
        "bundled", "user/name", "preset:saev/x", "one", "one", "one", "c"
    ]  # fmt: skip
