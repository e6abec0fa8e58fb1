"""What `import sae` offers, and that it stays light."""

import subprocess
import sys

import pytest

import sae

HEAVY = ("gradio", "datasets", "transformers", "torch", "open_clip", "timm", "pandas")


def test_all_names_exist_and_are_listed():
    assert sorted(sae.__all__) == dir(sae)
    assert all(getattr(sae, name).__name__ == name for name in sae.__all__)


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
