"""Where bytes lie.

A local disk or a bucket of S3, and files that are whole or absent. Start at `location`.
"""
