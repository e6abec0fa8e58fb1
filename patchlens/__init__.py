"""The command `patchlens`. The library is `sae`, what trains and measures is `training`."""
