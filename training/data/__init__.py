"""Where activations come from: sources of images, the shuffled stream of them, and stores on disk."""
