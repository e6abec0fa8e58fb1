"""Scores units of any kind against the truth of the emoji world, and puts them into one table."""
