"""Extraction by several processes: parts of `--part`, and ranks of torchrun."""
