"""Tables of images and labels: CSV and its relatives, Parquet, and lists of `path label` lines.

Start at `listed`. `read` makes rows of a file, `columns` finds out which columns are meant, `labels` makes
classes of labels, `paths` checks that images are there, below the root, and `published` knows published
lists.
"""
