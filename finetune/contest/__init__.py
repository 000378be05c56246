"""The contest: every method with its grid on the same features, chosen and ranked on validation images.

Start at `contest`; `entries` says who takes part.
"""
