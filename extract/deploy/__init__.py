"""A trained network in use: its predictions of loose images, and its export to files that others read.

Start at `predict` and `export`.
"""
