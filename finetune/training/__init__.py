"""Heads that share a plan are trained together.

Their inputs, the loop, history, choosing, resuming. Start at `trainer`.
"""
