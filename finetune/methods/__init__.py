"""Methods of Phase II, the options each depends on, and options that change nothing.

Start at `registry`.
"""
