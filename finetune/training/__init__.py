"""Heads that share a plan are trained together.

Start at `trainer`, which holds the loop; `history` is what is known of one head, `resume` what is kept of it.
"""
