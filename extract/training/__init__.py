"""Parts of `extract/train.py`: recipes, resuming, interrupted epochs, the hint about mirror images."""
