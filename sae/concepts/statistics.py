"""What is counted of a latent over a data set. Knows numbers; knows no files, models or screens."""

import numpy as np

N_BINS = 32


def histogram_edges() -> np.ndarray:
    """N_BINS + 1 edges, half an octave apart, from 2^-10 to 2^6; the same for every latent, so that
    histograms of two data sets can be added."""
    return 2.0 ** (np.arange(N_BINS + 1) / 2 - 10)
