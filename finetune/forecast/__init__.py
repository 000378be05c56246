"""`store plan`.

What an extraction and a fine-tuning will take in disk, memory and time. Start at `forecast`.
"""
