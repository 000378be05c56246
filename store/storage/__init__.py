"""Where a store's bytes are kept.

On a local disk or in an S3 bucket, in files that are written whole or not at all. Start at `location`.
"""
