"""The app as a program: options are parsed, models loaded, the page built, the server started.

Behind `python app.py`, `patchlens demo` and a Gradio Space. Options and their environment variables are
listed by `--help`; the page itself is `sae.ui`.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sae.ui import build_demo, launch_settings
from sae.ui.options import Options, load, parse

if TYPE_CHECKING:
    import gradio


def build(options: Options) -> "gradio.Blocks":
    """The page for what `options` name. OSError and ValueError where it cannot be had."""
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
    options = parse(sys.argv[1:] if argv is None else argv)
    try:
        build(options).launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            **launch_settings(),
        )
    except (OSError, ValueError) as error:
        print(f"PatchLens cannot start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
