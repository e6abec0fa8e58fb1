"""What was saved is read as it was, or not at all: seeded damages of every kind of thing that is saved."""

from pathlib import Path

import pytest

from sae import artifact, storage
from sae.adaptation import files
from training.bench import damage
from training.loop import checkpoints


@pytest.mark.slow
def test_nothing_damaged_is_loaded_altered_or_ends_in_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = damage.report(tmp_path, n=40)
    assert set(counts) == set(damage.KINDS)
    for name, outcomes in counts.items():
        assert (outcomes[damage.ALTERED], outcomes[damage.CRASHED]) == (0, 0), (name, outcomes)
        assert outcomes[damage.REFUSED] >= 10, (name, outcomes)
    assert capsys.readouterr().err == ""


def test_without_the_seals_it_finds_what_loads_altered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (artifact, files, storage, checkpoints):
        monkeypatch.setattr(module, "check_seal", lambda *_: None)
    monkeypatch.setattr(
        checkpoints, "STATE_TYPES", dict.fromkeys(checkpoints.STATE_TYPES, (object,))
    )
    for name in ("SAE", "head", "checkpoint"):
        outcomes = damage.report_of(damage.KINDS[name], tmp_path / name, n=80)
        assert outcomes[damage.ALTERED] > 0, name
