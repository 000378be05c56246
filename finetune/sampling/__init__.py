"""Sampling: random numbers, head and tail classes, confusing classes, masks, and the plan.

Start at `plan`.
"""
