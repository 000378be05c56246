"""A training that stopped early: its state, how it is resumed, and what is said of its network."""
