"""Imports point against the arrow of DESIGN: no module knows what comes after it, or comes back to itself."""

import ast
import graphlib
from pathlib import Path

import pytest

from tests.conftest import SLOW

ROOT = Path(__file__).resolve().parents[1]
ORDER = [
    "errors",
    "lazy",
    "storage",
    "terminal",
    "sparse",
    "architectures",
    "config",
    "images",
    "prefetch",
    "cards",
    "hub",
    "artifact",
    "interop",
    "world",
    "backbones",
    "model",
    "metrics",
    "concepts",
    "adaptation",
    "steering",
    "views",
    "ui",
]
ONLY = {
    "gradio": ("sae/ui/",),
    "transformers": ("sae/backbones/",),
    "open_clip": ("sae/backbones/",),
    "timm": ("sae/backbones/",),
}
NEVER = ("training", "patchlens", "app", "tests", "numba", "triton", "accelerate")
"""What the library and the app do not need: neither the commands nor what only training uses."""
FILES = sorted((ROOT / "sae").rglob("*.py"))
SOURCES = sorted(
    path for room in ("sae", "training", "patchlens") for path in (ROOT / room).rglob("*.py")
)
FACTORY = ("sae.backbones.base", "sae.backbones.loading")
"""The one honest circle: the base class's `from_pretrained` opens the families that derive from it."""


def imported(path: Path) -> set[str]:
    """Dotted names of every module that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


def part(name: str) -> int | None:
    pieces = name.split(".")
    return ORDER.index(pieces[1]) if pieces[0] == "sae" and len(pieces) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_backwards(path):
    relative = path.relative_to(ROOT)
    names = imported(path)
    assert not [name for name in names if name.split(".")[0] in NEVER]
    for library, homes in ONLY.items():
        if any(name.split(".")[0] == library for name in names):
            assert str(relative).startswith(homes), f"{relative} must not import {library}"
    if relative == Path("sae/__init__.py") or relative.name == "__main__.py":
        return  # names, and programs: they come last, like app.py
    own = ORDER.index(relative.parts[1].removesuffix(".py"))
    later = [name for name in names if (number := part(name)) is not None and number > own]
    assert not later, f"{relative} imports {later}"


def test_the_order_knows_every_module():
    there = {path.relative_to(ROOT).parts[1].removesuffix(".py") for path in FILES} - {"__init__"}
    assert there <= set(ORDER)


def test_reading_an_index_needs_nothing_of_building_one():
    for path in sorted((ROOT / "sae" / "concepts").glob("*.py")):
        assert not [name for name in imported(path) if name.startswith("sae.concepts.build")], path


def test_training_does_not_import_gradio():
    for path in sorted((ROOT / "training").rglob("*.py")):
        if "bench" not in path.parts:
            assert not any(name.split(".")[0] == "gradio" for name in imported(path)), path


def test_the_slow_tests_are_where_they_are_said_to_be():
    assert not [name for name in SLOW if not (ROOT / "tests" / name).is_file()]


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def needed(node: ast.AST, modules: set[str]) -> set[str]:
    """The `modules` that code imports when it runs, also inside functions; not what only types need."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return set().union(*(needed(child, modules) for child in node.orelse))
    names: set[str] = set().union(*(needed(child, modules) for child in ast.iter_child_nodes(node)))
    if isinstance(node, ast.Import):
        names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
        inside = {f"{node.module}.{alias.name}" for alias in node.names}
        names |= inside if inside <= modules else inside | {node.module or ""}
    return names & modules


def test_no_module_comes_back_to_itself():
    parsed = {dotted(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    graph = {name: needed(tree, set(parsed)) - {name} for name, tree in parsed.items()}
    base, loading = FACTORY
    assert loading in graph[base], "the exception is none any more: take it out of this test"
    graph[base].remove(loading)
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the modules of a circle


def test_a_circle_through_a_function_is_seen_and_one_of_types_is_none():
    inside = "def f():\n    from sae import model\n"
    types = "if TYPE_CHECKING:\n    import sae.model\nelse:\n    import sae.hub\n"
    modules = {"sae", "sae.model", "sae.hub"}
    assert needed(ast.parse(inside), modules) == {"sae.model"}
    assert needed(ast.parse(types), modules) == {"sae.hub"}
    assert needed(ast.parse("from sae.hub import push"), modules) == {"sae.hub"}


@pytest.mark.parametrize(
    "path", [*SOURCES, ROOT / "app.py"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_file_opens_with_what_it_knows(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
