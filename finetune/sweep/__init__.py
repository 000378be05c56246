"""Sweeps: hundreds of heads from one store.

Configurations, the sweep's folder, the ranking. Start at `sweep`.
"""
