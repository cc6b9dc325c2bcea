"""Restoration: the sampler, tiles, test sets, and pictures of your own."""
