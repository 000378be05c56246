"""`store plan`: disk space, memory and time that an extraction and a fine-tuning run will need.

Start at `forecast`.
"""
