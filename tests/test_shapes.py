"""Every public function that takes or gives tensors says their shapes, and so it stays."""

import ast
import contextlib
import inspect
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

ROOT = Path(__file__).parents[1]
ARRAYS = {"Tensor", "ndarray"}
SHAPED = {
    name
    for name, value in vars(jaxtyping).items()
    if inspect.isclass(value) and issubclass(value, jaxtyping.AbstractDtype)
}
NAMED = {"dict", "Mapping"}
"""Tensors by name have each a shape of its own, which their names' documentation says."""
COMPILED = {
    f"training/kernels/{name}.py"
    for name in ("adam_on_cuda", "compiled", "loops", "on_cuda", "screening")
}
"""Compiled for what they are called with; they say the shapes of `training.kernels.plain`."""
ANY = {"training/kernels/__init__.py: chosen"}
"""Asks where a tensor lies and of which dtype, whatever its shape."""


def modules() -> list[Path]:
    """The modules of the library and of its commands, measurements left out."""
    return [
        path
        for room in ("sae", "training")
        for path in sorted((ROOT / room).rglob("*.py"))
        if "bench" not in path.parts and path.relative_to(ROOT).as_posix() not in COMPILED
    ]


def name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def parsed(text: str) -> ast.expr | None:
    """What a string says as an annotation, None if it is none (a choice of a Literal, a key)."""
    with contextlib.suppress(SyntaxError):
        return ast.parse(text, mode="eval").body
    return None


def is_bare(node: ast.AST | None, *, named: bool = False) -> bool:
    """Whether an annotation has a tensor without a shape (`named`: as the value of a dict)."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return is_bare(parsed(node.value), named=named)
    if isinstance(node, ast.Name | ast.Attribute):
        return name_of(node) in ARRAYS and not named
    if isinstance(node, ast.Subscript):
        if name_of(node.value) in SHAPED:
            return False
        if name_of(node.value) in NAMED and isinstance(node.slice, ast.Tuple):
            return is_bare(node.slice.elts[1], named=name_of(node.slice.elts[0]) == "str")
    return node is not None and any(is_bare(part) for part in ast.iter_child_nodes(node))


def annotations(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.expr | None]:
    given = function.args
    for one in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
        yield one.annotation if one else None
    yield function.returns


def public_annotations(
    body: list[ast.stmt], owner: str = ""
) -> Iterator[tuple[str, list[ast.expr | None]]]:
    """Public functions, methods and fields with their annotations."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_annotations(node.body, f"{owner}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_") or node.name.startswith("__"):
                yield owner + node.name, list(annotations(node))
        elif isinstance(node, ast.AnnAssign) and not ast.unparse(node.target).startswith("_"):
            yield owner + ast.unparse(node.target), [node.annotation]
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            yield owner + ast.unparse(node.targets[0]), [node.value]  # an alias of a type


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_public_function_takes_or_gives_a_tensor_without_its_shape(path: Path) -> None:
    where = path.relative_to(ROOT).as_posix()
    bare = [
        f"{where}: {name}"
        for name, given in public_annotations(ast.parse(path.read_text("utf-8")).body)
        if any(is_bare(annotation) for annotation in given)
    ]
    assert not set(bare) - ANY, 'say the shape: Float[Tensor, "tokens d_in"]'


@pytest.mark.parametrize(
    ("annotation", "bare"),
    [
        ("Tensor", True),
        ("torch.Tensor | None", True),
        ("'np.ndarray'", True),
        ("Callable[[Tensor], int]", True),
        ("dict[int, Tensor]", True),
        ("dict[str, list[Tensor]]", True),
        ("dict[str, Tensor]", False),
        ("Float[Tensor, 'tokens d_in']", False),
        ("tuple[Int64[np.ndarray, ' n'], str]", False),
    ],
)
def test_what_counts_as_a_tensor_without_a_shape(annotation: str, bare: bool) -> None:
    assert is_bare(ast.parse(annotation, mode="eval").body) is bare


def test_the_rooms_that_say_shapes_are_checked() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]
    words = options["ini_options"]["addopts"].split()
    packages = next(w for w in words if w.startswith("--jaxtyping-packages=")).partition("=")[2]
    checked = set(packages.split(",")) - {"tests.shape_checks.shapes"}
    files = {str(path.relative_to(ROOT).with_suffix("")).replace("/", ".") for path in modules()}
    assert all(any(f"{name}.".startswith(f"{package}.") for name in files) for package in checked)
    assert not {path.removesuffix(".py").replace("/", ".") for path in COMPILED} & checked
