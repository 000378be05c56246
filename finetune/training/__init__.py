"""Training: all heads that share a plan, together.

Start at `trainer`, which holds the loop; `history` records one head, `resume` saves an interrupted run.
"""
