"""What a page that was built in this process leaves behind: Gradio closes none of its event loops."""

import asyncio
import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def no_loop_is_left() -> Iterator[None]:
    """Let go of Gradio's loops here, where their warnings are nobody's, not in the middle of another test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.set_event_loop(None)
        gc.collect()
