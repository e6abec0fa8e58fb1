"""Steering measured against the truth of the emoji world, and as the papers measure it."""
