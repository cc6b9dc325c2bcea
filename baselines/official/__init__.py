"""Runners of the published systems: their own code at a pinned commit, in its own environment."""
