"""Drafts: how a store is written until it is complete, on a disk or in a bucket. Start at `lifecycle`."""
