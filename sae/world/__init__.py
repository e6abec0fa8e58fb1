"""The emoji world: scenes from their description to pixels, masks and labels, and the tasks made of them."""
