"""Trainings: the prior, stage 1, stage 2, and what they cost."""
