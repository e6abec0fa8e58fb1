"""The emoji world: what is in it, how it is described, and the models trained on it."""
