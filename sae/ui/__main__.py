"""The app as a program: options are parsed, models loaded, a page a lens built, the server started.

Behind `python app.py`, `patchlens demo` and a Gradio Space. Options and their environment variables are
listed by `--help`; the page itself is `sae.ui`.
"""

import contextlib
import importlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from sae.terminal import command, no_proxies
from sae.ui import build_demo, launch_settings
from sae.ui.options import Options, lenses, load, parse

if TYPE_CHECKING:
    import gradio

    from sae.ui.lenses import Lenses


class Pages(NamedTuple):
    """What one server shows: a page a lens."""

    first: "gradio.Blocks"
    beside: "Mapping[str, gradio.Blocks]"
    """The other ones by name, which is where they are below the first."""


def build(options: Options) -> Pages:
    """The pages for what `options` name. OSError and ValueError where it cannot be had.

    Start them with `pages.first.launch(**launch_settings(pages.beside))`.
    """
    with no_proxies():  # gradio makes clients when it is imported, and cannot be without them
        importlib.import_module("gradio")
    from sae.ui.lenses import Lenses

    chosen = lenses(options)
    together = Lenses(tuple(lens for lens, _ in chosen))
    pages = {lens.name: _page(lens.name, together, own) for lens, own in chosen}
    first = chosen[0][0].name
    return Pages(pages.pop(first), pages)


def _page(name: str, together: "Lenses", options: Options) -> "gradio.Blocks":
    loaded = load(options)
    return build_demo(
        loaded.backbone,
        loaded.sae,
        loaded.index,
        metrics=loaded.metrics,
        steerer=loaded.steerer,
        experiments=loaded.experiments,
        comparison=loaded.comparison,
        sources=(loaded.vlm, options.sae or "bundled"),
        examples=loaded.examples or (),
        fit=loaded.fit,
        lens=name,
        lenses=together,
    )


@command
def main(argv: list[str]) -> None:
    """Serve the pages until they are stopped."""
    options = parse(argv)
    pages = build(options)
    with contextlib.nullcontext() if options.share else no_proxies():
        pages.first.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            prevent_thread_lock=True,
            **launch_settings(pages.beside),
        )
    pages.first.block_thread()


if __name__ == "__main__":
    sys.exit(main())
