"""The Compare tab: two heads on one picture and over a whole task, and the endpoint `/compare`.

Knows: Gradio. Does not know: how an answer is computed.
"""

import gradio as gr

from sae.adaptation.class_compare import ClassComparison
from sae.ui import class_tab
from sae.ui.compare_desk import CompareDesk
from sae.ui.page import Page, sent_file, sent_path


def build(page: Page) -> None:
    """Build the tab inside the open Blocks context; of a classifier, its other form."""
    assert page.comparison is not None, "a tab of its own only then"
    if isinstance(page.comparison, ClassComparison):
        return class_tab.build_compare(page, page.comparison)
    desk = CompareDesk(page.comparison, page.concepts, page.catalogue)
    desk.offer(page.dispatch)
    page.component("compare", "compare.js", **desk.setup())
    return _compare_endpoint(page, desk)


def _compare_endpoint(page: Page, desk: CompareDesk) -> None:
    def compare(image: str | None, task: str, first: str, second: str) -> dict[str, object]:
        """Two heads of a task on a picture: predictions, and each concept's share in the margin.

        Of each head, start + contributions + residual = margin; start is what any picture gives.
        """
        picture = page.concepts.uploaded(sent_path(image, "compare"))
        return desk.comparison.explain(picture, task, (first, second)).to_json()

    page.endpoint(
        compare,
        [
            sent_file(),
            gr.Textbox(label="task", visible=False),
            gr.Textbox(label="first head", visible=False),
            gr.Textbox(label="second head", visible=False),
        ],
        "comparison",
    )
