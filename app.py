"""PatchLens as a page: `python app.py`, then open the printed address.

Options and their environment variables are listed by `python app.py --help`. Imported, it has `demo`, the
first page, for Gradio's own tools.
"""

import sys

from sae.ui.__main__ import build, main
from sae.ui.options import parse

if __name__ == "__main__":
    sys.exit(main())
options = parse([])
demo = build(options).first
