"""The rows of the table of untrained dictionaries: what they are, and what a missing figure looks like."""

import torch

from sae.config import BackboneRef, SAEConfig
from sae.metrics.untrained import NAMES
from sae.model import SparseAutoencoder
from training.bench.untrained import dictionaries, matrix, table


def made() -> tuple[SparseAutoencoder, torch.Tensor]:
    torch.manual_seed(0)
    sae = SparseAutoencoder(SAEConfig("topk", 6, 20, BackboneRef("bundled", 1), k=3))
    for parameter in (sae.W_enc, sae.W_dec):
        parameter.data.copy_(torch.randn_like(parameter))
    return sae.requires_grad_(False), torch.randn(400, 6)


def test_each_untrained_dictionary_comes_once_a_seed_and_as_sparse_as_the_sae():
    sae, fit = made()
    found = dictionaries(sae, fit, [0, 1])
    again = [f"{name}, seed 1" for name in NAMES]
    assert list(found) == ["SAE", "raw neurons", *NAMES, *again]
    for name in ("SAE", "random directions", "random tokens, seed 1"):
        code = matrix(found[name].encode, fit, found[name].n_units)
        assert code.shape == (400, 20)
        assert 2.5 < code.nnz / 400 <= 3
    dense = sae.encode(fit)
    torch.testing.assert_close(
        torch.from_numpy(matrix(found["SAE"].encode, fit, 20).toarray()), dense
    )


def test_a_figure_that_a_row_does_not_have_is_a_dash():
    rows = {"SAE": {"units": 20.0, "MS x/y": 0.5, "MS x/y ±": 0.01}, "chance": {"MS x/y": 0.25}}
    lines = table(rows, ["x/y"], truth=False).splitlines()
    assert lines[0].startswith("| | units | L0 | MS (y) |")
    assert lines[2].startswith("| SAE | 20 | – | 0.500 ± 0.010 | –")
    assert lines[3].startswith("| chance | – | – | 0.250 | –")
