"""Procedural scenes: plain ones, and textured ones to train a prior; `render` draws one."""
