"""Where images come from: a file for each source, which declares its options and lists its images.

Start at `registry`.
"""
