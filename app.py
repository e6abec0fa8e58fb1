"""PatchLens as a page: `python app.py`, then open the printed address.

Thin on purpose: options are parsed, models loaded, the page built, the server started. Options and
their environment variables are listed by `python app.py --help`; the page itself is `sae.ui`.
"""

import sys

from sae.ui import build_demo, launch_settings
from sae.ui.options import load, parse

options = parse(sys.argv[1:] if __name__ == "__main__" else [])
try:
    loaded = load(options)
    demo = build_demo(
        loaded.backbone,
        loaded.sae,
        loaded.index,
        metrics=loaded.metrics,
        steerer=loaded.steerer,
        presets=loaded.presets,
        comparison=loaded.comparison,
        sources=(loaded.vlm, options.sae),
    )
except (OSError, ValueError) as error:
    if __name__ != "__main__":
        raise
    sys.exit(f"PatchLens cannot start: {error}")

if __name__ == "__main__":
    try:
        demo.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            **launch_settings(),
        )
    except OSError as error:
        sys.exit(f"PatchLens cannot start: {error}")
