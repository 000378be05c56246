"""How Phase I turns gradients into weights. Read `config.py` for the options, then `optimizer.py`."""
