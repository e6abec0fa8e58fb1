"""A tiny backbone, made once."""

import pytest

from tests.training.training_parts import backbone


@pytest.fixture(scope="session")
def tiny_clip():
    """A random CLIP of 4 × 4 patches."""
    return backbone()
