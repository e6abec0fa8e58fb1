"""Concepts: what latents stand for, gathered over a data set, stored, named."""
