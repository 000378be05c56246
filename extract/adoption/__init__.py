"""Phase I from a network that another program trained: its weights, its classes, and a checkpoint of ours.

`adopt` is the way through: options to a network, images and checkpoint. `beside_store` keeps that checkpoint.
"""
