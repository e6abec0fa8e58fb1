"""Class heads on a frozen CLIP and what they do with concepts: train, read, compare, explain, mask.

`sae.adaptation.compare.Comparison` is the way in for an app; `heads` and `tasks` for training.
"""
