"""What `import sae` offers, and that it stays light."""

import re
import subprocess
import sys

import pytest

import sae
from sae import errors

HEAVY = ("gradio", "datasets", "transformers", "torch", "open_clip", "timm", "pandas", "numpy")


def test_all_names_exist_and_are_listed():
    assert sorted(sae.__all__) == dir(sae)
    assert all(getattr(sae, name).__name__ == name for name in sae.__all__)


def test_every_error_of_the_tree_is_a_public_name():
    tree = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.PatchLensError)
    }
    assert tree <= set(sae.__all__)
    drawn = re.findall(r"[├└]── (\w+) +(ValueError|OSError)?", errors.__doc__)
    assert {name for name, _ in drawn} | {"PatchLensError"} == tree
    builtin = {"ValueError": ValueError, "OSError": OSError}
    for name, parent in drawn:
        assert not parent or issubclass(getattr(errors, name), builtin[parent])
        assert (getattr(errors, name).__doc__ or "").strip()


def test_errors_are_told_by_their_class():
    assert issubclass(sae.HubFileNotFound, sae.HubError)
    assert not issubclass(sae.HubUnreachable, sae.HubFileNotFound)
    with pytest.raises(sae.ConfigError, match="architecture must be one of"):
        sae.SAEConfig("nothing", 1, 1, sae.BackboneRef("bundled", 0))


def test_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match="ConceptIndex"):
        _ = sae.Autoencoder


def test_import_loads_nothing_heavy():
    code = f"import sys, sae; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_loading_models_needs_no_gradio():
    code = (
        "import sys; from sae import Backbone, ConceptIndex, SparseAutoencoder; "
        "print('gradio' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
