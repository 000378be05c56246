"""Heads and their steps: stacks of FC layers, losses, post-hoc heads, CUDA graphs. Start at `stacked`."""
