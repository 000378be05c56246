"""Checks that images and features are those of a checkpoint: digests, records, rows extracted again."""
