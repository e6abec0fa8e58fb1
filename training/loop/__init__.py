"""The training loop: options, weights, losses, the trainer of one SAE, a run of several and its results."""
