"""An index as a notebook shows it: a short table of the surest names with their strongest images.

Knows HTML and what of an index is shown; every text of the index is escaped.
"""

import base64
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sae.concepts.index import ConceptIndex

_N_SHOWN = 12
_N_PICTURES = 5
_STYLE = "style='height:56px;margin:1px;border-radius:3px'"


def html_table(index: "ConceptIndex") -> str:
    """The table with a line about the whole."""
    flags = ", ".join(
        f"{int(flag.sum()):,} {word}"
        for word, flag in (("dead", index.dead), ("rare", index.rare), ("dense", index.dense))
    )
    head = (
        f"<p><b>ConceptIndex</b>: {len(index):,} latents ({flags}), {sum(map(bool, index.names)):,} "
        f"named, over {escape(index.data)}: {index.n_images:,} images, {index.n_tokens:,} tokens.</p>"
    )
    by_surety = np.lexsort((-index.frequency, -index.name_confidences))
    shown = [int(latent) for latent in by_surety[:_N_SHOWN] if not index.dead[latent]]
    rows = "".join(_row(index, latent) for latent in shown)
    cells = "<th>latent</th><th>name</th><th>confidence</th><th>frequency</th><th>exemplars</th>"
    return f"{head}<table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table>"


def _row(index: "ConceptIndex", latent: int) -> str:
    pictures = "".join(
        f"<img {_STYLE} title='{escape(exemplar.label)}' src='data:image/webp;base64,"
        f"{base64.b64encode(index.thumbnail(exemplar.image_id)).decode()}'>"
        for exemplar in index.exemplars(latent)[:_N_PICTURES]
    )
    return (
        f"<tr><td>{latent}</td><td>{escape(index.names[latent])}</td>"
        f"<td>{index.name_confidences[latent]:.2f}</td><td>{index.frequency[latent]:.4f}</td>"
        f"<td>{pictures}</td></tr>"
    )
