"""Training commands: SAEs, concept indexes, and the emoji world. The library never imports this."""
