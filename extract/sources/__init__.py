"""Where images come from: a file for each source, which says what it takes and lists its images.

Start at `registry`.
"""
