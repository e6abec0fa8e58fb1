"""Damage of every sort, made for any format: at least fifty ways in which a file can lie.

A mutation works on a folder that a maker of `published` (or `save_pretrained`) has filled, or on the
tensors just before they are written.
"""

import faulthandler
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import torch as safetensors_torch

Change = Callable[[dict[str, torch.Tensor]], None]
WEIGHTS = (".pt", ".safetensors", ".pth")
HANG_S = 1200
"""After which a read of milliseconds hangs, on any machine: the files that are made to last take hours."""


@contextmanager
def no_hang() -> Iterator[None]:
    """End this process, saying where it was, if what is inside never comes back."""
    faulthandler.dump_traceback_later(HANG_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def before_writing(change: Change) -> Iterator[None]:
    """Apply `change` to every state dict that is written inside this context."""
    save, save_file = torch.save, safetensors_torch.save_file

    def state_of(content: Any) -> dict[str, torch.Tensor]:
        for key in ("state_dict", "model_state_dict", "model"):
            if key in content:
                return content[key]
        return content

    def changed_save(content: Any, *args: Any, **kwargs: Any) -> None:
        change(state_of(content))
        save(content, *args, **kwargs)

    def changed_save_file(tensors: dict, *args: Any, **kwargs: Any) -> None:
        change(tensors)
        save_file(tensors, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", changed_save)
        patch.setattr(safetensors_torch, "save_file", changed_save_file)
        yield


def tensor_changes(tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, Change]]:
    """Missing, renamed, transposed, cut, of another dtype, not finite: every tensor in turn."""
    for name in [n for n, t in tensors.items() if t.dim()]:
        tensor = tensors[name]
        yield f"no {name}", lambda t, n=name: t.__delitem__(n)
        yield f"renamed {name}", lambda t, n=name: t.update({f"{n}_": t.pop(n)})
        yield f"{name} in a folder above", lambda t, n=name: t.update({f"../../{n}": t.pop(n)})
        yield f"{name} with one more axis", _swap(name, lambda v: v[None])
        if tensor.dim() == 2:
            yield f"{name} transposed", _swap(name, lambda v: v.t().contiguous())
            yield f"{name} with one column less", _swap(name, lambda v: v[:, :-1].contiguous())
        if tensor.is_floating_point():
            yield f"{name} half as exact", _swap(name, lambda v: v.half())
            yield f"{name} of whole numbers", _swap(name, lambda v: v.long())
            yield (
                f"NaN in {name}",
                _swap(name, lambda v: v.index_fill(0, torch.tensor([0]), torch.nan)),
            )
            yield (
                f"infinity in {name}",
                _swap(name, lambda v: v.index_fill(0, torch.tensor([1]), torch.inf)),
            )
        yield f"{name} shorter", _swap(name, lambda v: v[:-1].contiguous())
    yield "one more tensor", lambda t: t.update(more=torch.zeros(3))
    yield "no tensors", lambda t: t.clear()


def _swap(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return lambda tensors: tensors.update({name: change(tensors[name].detach())})


def weights_in(folder: Path) -> Path:
    return next(p for p in sorted(folder.rglob("*")) if p.name.endswith(WEIGHTS))


def file_changes() -> Iterator[tuple[str, Callable[[Path], None]]]:
    """What is done to the weights file itself."""
    for at in (0, 1, 9, 0.2, 0.5, 0.8, -200, -20, -1):
        yield f"cut at {at}", lambda path, at=at: path.write_bytes(_cut(path.read_bytes(), at))
    yield "zeros", lambda path: path.write_bytes(bytes(5000))
    yield "text", lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    yield "no file", lambda path: path.unlink()
    for name, code in CODE.items():
        yield f"pickle that calls {name}", lambda path, c=code: path.write_bytes(c)
        yield f"archive that calls {name}", lambda path, c=code: path.write_bytes(archive(c))
    for name, made in bombs().items():
        yield name, lambda path, made=made: path.write_bytes(made)


def _cut(data: bytes, at: float) -> bytes:
    return data[: int(len(data) * at)] if isinstance(at, float) else data[:at]


def call(module: str, name: str, argument: str = "'echo no'") -> bytes:
    """A pickle that calls module.name with a text."""
    return f"c{module}\n{name}\n(S{argument}\ntR.".encode()


CODE = {
    f"{module}.{name}": call(module, name)
    for module, name in (
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "__import__"),
        ("subprocess", "Popen"),
        ("importlib", "import_module"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("numpy", "load"),
        ("shutil", "rmtree"),
        ("src.sae_training.config", "run"),
    )
}
CODE["an old class"] = b"(S'echo no'\nios\nsystem\n."
CODE["an extension"] = b"\x80\x02\x82\x01."


def archive(data: bytes, records: dict[str, bytes] | None = None, **options: Any) -> bytes:
    """A torch.save archive of this pickle and these records."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/version", b"3\n")
        for name, content in (records or {}).items():
            file.writestr(name, content)
    return out.getvalue()


def declared(numel: int, shape: tuple[int, ...], key: str = "0", offset: int = 0) -> bytes:
    """A pickle of {"W_enc": a tensor} that claims this storage and shape."""

    def number(value: int) -> bytes:
        return f"I{value}\n".encode() if value < 2**31 else f"L{value}L\n".encode()

    sizes = b"(" + b"".join(number(n) for n in shape) + b"t"
    strides = b"(" + b"I0\n" * len(shape) + b"t"
    storage = (
        f"(S'storage'\nctorch\nFloatStorage\nS'{key}'\nS'cpu'\n".encode() + number(numel) + b"tQ"
    )
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + sizes + strides
    rebuild += b"I00\nccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}S'W_enc'\n" + rebuild + b"s."


TWICE = b"2\x86"
"""Opcodes that replace what is on top of the stack by a pair of it and itself."""


def endless() -> dict[str, bytes]:
    """Small files that would keep a reader busy for hours: 2^40 steps, or 10^8 of them."""
    deep = b")" + TWICE * 40
    long_list = b"cbuiltins\nset\nq\x01](" + b"N" * 20_000 + b"e\x85q\x02R0"
    again = b"h\x01h\x02R0"
    alike = (n * ((1 << 61) - 1) for n in range(1, 24_000))
    alike = b"".join(b"\x8a\x0b" + n.to_bytes(11, "little") + b"N" for n in alike)
    made = {
        "a key that is hashed for hours": b"}" + deep + b"Ns",
        "keys that are hashed for hours": b"}(" + deep + b"Nu",
        "a dict of such a key": b"(" + deep + b"Nd",
        "a set of such a key": b"\x8f(" + deep + b"\x90",
        "a frozen set of such a key": b"(" + deep + b"\x91",
        "an old set of such a key": b"cbuiltins\nset\n(](" + deep + b"etR",
        "an old dict of such a key": b"ccollections\nOrderedDict\n(](" + deep + b"N\x86etR",
        "a reference written out for hours": deep + b"Q",
        "a device written out for hours": b"ctorch\ndevice\n(" + deep + b"tR",
        "keys that all have one hash": b"}(" + alike + b"u",
        "a long list that is copied again and again": long_list + again * 4000 + b"N",
    }
    return {name: b"\x80\x04" + code + b"." for name, code in made.items()}


def bombs() -> dict[str, bytes]:
    """Files that claim more than they hold."""
    four = {"archive/data/0": bytes(16)}
    header = json.dumps(
        {"W_enc": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4 * 10**18]}}
    ).encode()
    return {
        "a shape beyond its storage": archive(declared(4, (10**6, 10**6)), four),
        "a storage beyond its record": archive(declared(10**15, (4,)), four),
        "an offset beyond its storage": archive(declared(4, (4,), offset=10**12), four),
        "a record above the folder": archive(declared(4, (4,)), {"archive/../../x": bytes(16)}),
        "an absolute record": archive(declared(4, (4,)), {"/etc/x": bytes(16)}),
        "a key above the folder": archive(declared(4, (4,), key="../../x"), four),
        "a record that is not there": archive(declared(4, (4,), key="7"), four),
        "a packed record": archive(
            declared(1 << 24, (1 << 24,)), {"archive/data/0": bytes(1 << 26)}, compression=8
        ),
        "bytes of an exabyte": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"abc.",
        "text of an exabyte": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"abc.",
        "a memo of gigabytes": b"\x80\x02Nr" + struct.pack("<I", (1 << 31) - 1) + b".",
        "half a million opcodes": b"\x80\x02" + b"N0" * 250_000 + b"N.",
        "a frame of an exabyte": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",
        "deep nesting": b"\x80\x02" + b"(" * 200_000 + b"N" + b"t" * 200_000 + b".",
        "a header of an exabyte": struct.pack("<Q", 1 << 60) + b"{}",
        "a shape of an exabyte": struct.pack("<Q", len(header)) + header + bytes(64),
        "a safetensors of text": struct.pack("<Q", 4) + b"{{{{",
        "another pickle": pickle.dumps({"hello": [1, 2, 3]}),
        "nothing but None": pickle.dumps(None),
        **endless(),
    }


def json_changes() -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    """What is done to a config: not JSON, not an object, a bomb."""
    yield "empty", lambda _: b""
    yield "half", lambda text: text[: len(text) // 2]
    yield "a list", lambda text: b"[" + text + b"]"
    yield "a bomb", lambda _: b"[" * 100_000
    yield "not UTF-8", lambda text: b"\xff\xfe" + text
    yield "two megabytes", lambda text: text + b" " * (2 << 20)
    yield "written twice", lambda text: text.rstrip()[:-1] + b"," + text.strip()[1:]
    yield "{}", lambda _: b"{}"
