"""How rows are encoded and read.

Raw or compressed runs of rows, their checksums, and gathers of single rows. Start at `gather`.
"""
