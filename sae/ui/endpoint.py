"""The HTTP endpoint `/concepts`: a picture in, its concepts out as JSON rows.

Knows: Gradio's components and what a caller may send. Does not know: the page.
Everything else that the page's server answers is private.
"""

from pathlib import Path

import gradio as gr

from sae.images import ImageError
from sae.ui.catalogue import Catalogue
from sae.ui.concepts_desk import Openings
from sae.views.ranking import rank

MAX_ROWS = 64
"""Concepts that are returned at most."""


class SentFile(gr.File):
    """A file that the caller has sent. An address is refused: this server fetches nothing."""

    def get_block_name(self) -> str:
        return "file"

    async def async_move_resource_to_block_cache(
        self, url_or_file_path: str | Path | None
    ) -> str | None:
        if "://" in str(url_or_file_path):
            raise gr.Error(
                "Send the picture itself: an address is not fetched.", print_exception=False
            )
        return await super().async_move_resource_to_block_cache(url_or_file_path)


def concepts_endpoint(openings: Openings, catalogue: Catalogue) -> None:
    """Add the endpoint to the open Blocks context; its components are never on screen."""

    def concepts(image: str | None) -> list[dict[str, object]]:
        """The concepts of a picture, strongest first: at most 64 rows.

        Every row has latent (its number), name (may be empty), activation (maximum over patches),
        mean (over all patches) and frequency (share of the index's images; null without an index).
        """
        if image is None:
            raise gr.Error(
                "Send a picture: predict(handle_file(path), api_name='/concepts').",
                print_exception=False,
            )
        try:
            return rows(openings, catalogue, image)
        except ImageError as error:
            raise gr.Error(str(error), print_exception=False) from error

    gr.Button(visible=False).click(
        concepts,
        SentFile(label="image", type="filepath", visible=False),
        gr.JSON(label="concepts", visible=False),
        api_name="concepts",
        concurrency_id="model",
        concurrency_limit=1,
    )


def rows(openings: Openings, catalogue: Catalogue, path: str) -> list[dict[str, object]]:
    """The answer for a picture file; ImageError if it is none."""
    ranked = rank(openings.read(path).code, openings.analyst.n_patches)
    triples = list(zip(*ranked, strict=True))[:MAX_ROWS]
    return [
        {
            "latent": int(latent),
            "name": catalogue.name(int(latent)),
            "activation": round(float(maximum), 5),
            "mean": round(float(mean), 6),
            "frequency": catalogue.frequency(int(latent)),
        }
        for latent, maximum, mean in triples
    ]
