"""Building an index: everything that only the pass over a data set needs, and reading one never does."""
