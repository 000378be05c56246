"""Phase I in several processes, under `torchrun`: `joining.py` connects them, `ranks.py` has what they do."""
