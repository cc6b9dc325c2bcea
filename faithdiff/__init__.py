"""A reproduction suite for FaithDiff (CVPR 2025, arXiv 2411.18824)."""

__version__ = "0.1.0"
