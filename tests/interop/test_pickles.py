"""A pickle is data: nothing that it names is run or imported, and nothing it says costs hours."""

from pathlib import Path

import pytest
import torch

from sae.errors import ArtifactError
from sae.interop.pickles import MAX_LINE, FileView, read_pickle, state_dict_of
from sae.interop.unpickler import Record
from tests.interop.mutations import archive, endless, no_hang


def test_what_a_pickle_names_is_never_run(tmp_path: Path) -> None:
    torch.save({"made": torch.nn.Linear(2, 3)}, tmp_path / "module.pt")
    record = read_pickle(tmp_path / "module.pt")["made"]
    assert not isinstance(record, torch.nn.Module)
    assert record.class_name == "torch.nn.modules.linear.Linear"


@pytest.mark.parametrize("name", endless())
def test_a_small_file_keeps_no_reader_busy(name: str, tmp_path: Path) -> None:
    path = tmp_path / "sae.pt"
    for content in (endless()[name], archive(endless()[name])):
        path.write_bytes(content)
        with no_hang(), pytest.raises(ArtifactError, match="sae.pt: found "):
            read_pickle(path)


class Counted(dict):
    """A module's attributes, which count how often any of them is asked for."""

    asked = 0

    def get(self, name: str, default: object = None) -> object:
        Counted.asked += 1
        assert Counted.asked < 1000, "a module is walked again and again"
        return super().get(name, default)


def test_a_module_that_is_meant_in_many_places_is_walked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Counted, "asked", 0)
    module = Record()
    module.values = Counted()
    module.values["_parameters"] = {"weight": torch.zeros(1)}
    for _ in range(30):
        above = Record()
        above.values = Counted()
        above.values["_modules"] = dict.fromkeys("abc", module)
        module = above
    assert len(state_dict_of(module)) <= 1
    assert 0 < Counted.asked <= 3 * 31  # three kinds of entries of each module


def test_a_line_without_end_is_read_up_to_a_bound() -> None:
    assert len(FileView(b"a" * 10 * MAX_LINE).readline()) == MAX_LINE
    assert FileView(b"one\ntwo\n").readline() == b"one\n"


def test_what_a_pickle_names_is_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(torch, "__getattr__", asked.append)
    (tmp_path / "sae.pt").write_bytes(b"ctorch\n_lazy\n.")
    with pytest.raises(ArtifactError, match="a request for torch._lazy"):
        read_pickle(tmp_path / "sae.pt")
    assert asked == []


def test_attributes_are_given_to_records_alone(tmp_path: Path) -> None:
    (tmp_path / "sae.pt").write_bytes(b"cbuiltins\ndict\n(N}S'__init__'\nNstb.")
    with pytest.raises(ArtifactError, match="attributes of a type"):
        read_pickle(tmp_path / "sae.pt")
