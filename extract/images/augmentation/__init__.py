"""How training images are changed at random. Read `config.py` for the options."""
