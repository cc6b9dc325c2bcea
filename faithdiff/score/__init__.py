"""Metrics and protocols: the scores of every restored image, and the held-out loss."""
