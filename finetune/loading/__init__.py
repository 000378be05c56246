"""Loading: from the store to batches on the device.

Features, residency of the maps, windows, prefetch. Start at `window`.
"""
