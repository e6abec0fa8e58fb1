"""The app as a program: options are parsed, models loaded, the page built, the server started.

Behind `python app.py`, `patchlens demo` and a Gradio Space. Options and their environment variables are
listed by `--help`; the page itself is `sae.ui`.
"""

import contextlib
import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sae.terminal import arguments, no_proxies
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


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until it is stopped; returns the exit status."""
    options = parse(arguments(argv))
    try:
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
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"PatchLens cannot start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
