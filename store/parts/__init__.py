"""A store that several processes write, each its share of the blocks: `writer`, and `join` at the end."""
