"""What `cli.py` needs around its commands.

Options of configs, progress, advice, what is refused at once, `store …`.
"""
