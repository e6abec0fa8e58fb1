"""The app as a program: options are parsed, models loaded, the page built, the server started.

Behind `python app.py`, `patchlens demo` and a Gradio Space. Options and their environment variables are
listed by `--help`; the page itself is `sae.ui`.
"""

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING

from sae.terminal import command, no_proxies
from sae.ui import build_demo, launch_settings
from sae.ui.options import Options, load, parse

if TYPE_CHECKING:
    import gradio


def build(options: Options) -> "gradio.Blocks":
    """The page for what `options` name. OSError and ValueError where it cannot be had."""
    with no_proxies():  # gradio makes clients when it is imported, and cannot be without them
        importlib.import_module("gradio")
    loaded = load(options)
    return build_demo(
        loaded.backbone,
        loaded.sae,
        loaded.index,
        metrics=loaded.metrics,
        steerer=loaded.steerer,
        experiments=loaded.experiments,
        comparison=loaded.comparison,
        sources=(loaded.vlm, options.sae),
    )


@command
def main(argv: list[str]) -> None:
    """Serve the page until it is stopped."""
    options = parse(argv)
    page = build(options)
    with contextlib.nullcontext() if options.share else no_proxies():
        page.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            prevent_thread_lock=True,
            **launch_settings(),
        )
    page.block_thread()


if __name__ == "__main__":
    sys.exit(main())
