"""Where training images come from, whatever stands behind --data.

Knows which reader belongs to which --data. Knows nothing of backbones or activations.
"""

from collections.abc import Collection
from typing import Any

from training.data.sources.folder import SUFFIXES, folder
from training.data.sources.hugging_face import dataset, is_dataset, streamed
from training.data.sources.image_source import (
    HELD_OUT_SHARE,
    ImageSource,
    split,
    world,
)
from training.data.sources.tar_shards import is_tar_data, tar_shards

__all__ = ["HELD_OUT_SHARE", "SUFFIXES", "ImageSource", "open_source", "open_whole"]


def open_source(
    data: str,
    *,
    seed: int,
    n_eval: int,
    streaming: bool = False,
    kept: Collection[str] | None = None,
) -> tuple[Any, Any]:
    """The training images and the held-out images of `data`, which never share one.

    `data` is 'world'; a folder of images; .tar shards (their folder, a file, or a pattern such as
    a-{000..012}.tar); a Hugging Face dataset (hf:user/name[:split][#column], or a folder of
    save_to_disk), with `streaming` read in order without a download; or a store of training/extract.py.
    Images by number keep 5 % (at most `n_eval`, at least two of four) as held-out, the same ones in
    every run over as many images, or those of the names `kept` that an earlier run held out; a
    streamed dataset holds out its first `n_eval` images; a store knows its own.

    Raises FileNotFoundError, OSError or ValueError, one sentence with the next step.
    """
    from training.data.store import is_store, open_store

    if is_store(data):
        store = open_store(data)
        return store.training, store.held_out.first(n_eval)
    if streaming:
        if not is_dataset(data):
            raise ValueError(f"--streaming needs a Hugging Face dataset as --data, got {data}.")
        return streamed(data, n_eval)
    if data == "world":
        return world(seed, n_eval)
    whole, n = open_whole(data)
    return split(whole, n, n_eval, data, kept)


def open_whole(data: str) -> tuple[ImageSource, int]:
    """All images of a folder, tar shards or a dataset, numbered from 0, and how many there are."""
    if is_dataset(data):
        return dataset(data)
    return tar_shards(data) if is_tar_data(data) else folder(data)
