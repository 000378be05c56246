"""How rows are encoded and read.

Raw or compressed runs of rows, their checksums, gathers of single rows. Start at `gather`.
"""
