"""Datasets: photographs, procedural scenes, folders; captions; files from outside."""
