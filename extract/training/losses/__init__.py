"""What Phase I minimises. Read `config.py` for the options, then `objective.py`."""
