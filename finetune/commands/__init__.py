"""The command line around the commands of `cli.py`.

Options from configs, help, progress, early checks, advice after an interruption, and `store …`.
"""
