"""Figures of an SAE on images that it never saw: which these are, the passes, and what stands beside."""
