"""Heads and how they are trained: stacked FC layers, losses, post-hoc heads, CUDA graphs.

Start at `stacked`.
"""
