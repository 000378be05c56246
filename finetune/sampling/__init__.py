"""What is drawn.

Counter-based random numbers, head and tail, confusing classes, masks, the plan. Start at `plan`.
"""
