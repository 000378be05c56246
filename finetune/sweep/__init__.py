"""Hundreds of heads over one store.

Configurations, the folder they are kept in, the ranking. Start at `sweep`.
"""
