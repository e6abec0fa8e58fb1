"""Every published format gives the numbers that its own library computes, and one from outside too."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sae import interop
from sae.errors import ArtifactError, ConfigError
from sae.interop import READERS, Hints, register_reader
from sae.interop import source as source_module
from sae.interop.__main__ import main
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.source import Source, field, take
from sae.model import SparseAutoencoder
from tests.interop.published import PUBLISHED, D

X = torch.randn(64, D, generator=torch.Generator().manual_seed(5)) * 1.5 + 0.3


@pytest.mark.parametrize("case", PUBLISHED)
def test_equal_to_the_formats_own_encode_and_decode(case: str, tmp_path: Path) -> None:
    name, make = PUBLISHED[case]
    published = make(tmp_path)
    found = interop.read(published.source, published.hints)
    assert found.format == name == interop.detect(published.source)
    backbone = found.cfg.backbone
    assert (backbone.id, backbone.layer, backbone.tokens) == published.place
    sae = SparseAutoencoder._from_weights(found.cfg, found.tensors)
    latents = published.encode(X)
    assert 0.02 < float((latents != 0).float().mean()) < 0.98
    torch.testing.assert_close(sae.encode(X), latents, atol=1e-4, rtol=1e-4)
    assert torch.equal(sae.encode(X) != 0, latents != 0)
    torch.testing.assert_close(sae(X), published.decode(latents, X), atol=1e-3, rtol=1e-4)
    sparse = sae.encode_sparse(X)
    torch.testing.assert_close(sae.decode(sparse, like=X), sae(X), atol=1e-4, rtol=1e-4)
    sae.save_pretrained(tmp_path / "ours")
    again = SparseAutoencoder.from_pretrained(tmp_path / "ours")
    assert again.cfg == found.cfg
    assert torch.equal(again.encode(X), sae.encode(X))


class Rows:
    """A format of one JSON file: {"layer", "encoder": [rows], "decoder": [rows]}, biases zero."""

    NAME = "rows"
    TITLE = "rows: sae.json"

    def detect(self, source: Source) -> bool:
        return source.has("sae.json")

    def read(self, source: Source, hints: Hints) -> Reading:
        path, content = source.need("sae.json")
        tensors = {name: torch.tensor(content[name]) for name in ("encoder", "decoder")}
        w = take(path, tensors, {"encoder": "Fd", "decoder": "Fd"})
        n, d = w["encoder"].shape
        described = ForeignSAE(
            "relu", w["encoder"].t(), torch.zeros(n), w["decoder"], torch.zeros(d)
        )
        layer = field(path, content, "layer", int)
        reading = Reading(described, layer=layer, tokens=hints.tokens, weights=path)
        if "equations" in content:
            reading.reference = lambda x: (
                latents := (x @ w["encoder"].t()).relu(),
                latents @ w["decoder"],
            )
        return reading


@pytest.fixture
def rows() -> Iterator[None]:
    """The format, in the table until the test ends."""
    register_reader(Rows())
    yield
    del READERS["rows"]


@pytest.mark.usefixtures("rows")
def test_a_format_from_outside(tmp_path: Path) -> None:
    encoder, decoder = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).round(
        decimals=2
    )
    content = {"layer": 4, "encoder": encoder.tolist(), "decoder": decoder.tolist(), "equations": 1}
    (tmp_path / "sae.json").write_text(json.dumps(content))
    assert interop.detect(tmp_path) == "rows"
    sae = SparseAutoencoder.from_other(tmp_path, backbone="bundled", tokens="all")
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(sae(x), (x @ encoder.t()).relu() @ decoder)
    assert sae.cfg.backbone.layer == 4
    (tmp_path / "sae.json").write_text(json.dumps({**content, "decoder": decoder.t().tolist()}))
    with pytest.raises(ArtifactError, match=r"sae.json: found decoder of shape \(3, 5\)"):
        SparseAutoencoder.from_other(tmp_path, backbone="bundled", tokens="all")
    with pytest.raises(ConfigError, match="there is a format 'rows' already"):
        register_reader(Rows())


@pytest.mark.usefixtures("rows")
def test_a_reader_without_equations_says_that_it_could_not_be_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    content = {"layer": 4, "encoder": rows[0].tolist(), "decoder": rows[1].tolist()}
    (tmp_path / "sae.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="it gives no equations to check it with"):
        SparseAutoencoder.from_other(tmp_path, backbone="bundled", tokens="all")
    words = [str(tmp_path), "--to", str(tmp_path / "out"), "--backbone", "a/b", "--tokens", "all"]
    assert main(words) == 0
    assert "self-check  could not be made: see above" in capsys.readouterr().out


@pytest.mark.parametrize("case", PUBLISHED)
def test_a_pickle_is_parsed_once(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, parse = PUBLISHED[case][1](tmp_path), source_module.read_pickle
    parsed: Counter[Path] = Counter()

    def counted(path: Path) -> Any:
        parsed[path] += 1
        return parse(path)

    monkeypatch.setattr(source_module, "read_pickle", counted)
    hints = made.hints or Hints()
    interop.read(made.source, Hints(None, hints.backbone, hints.layer, hints.tokens, hints.k))
    assert set(parsed.values()) <= {1}
