"""Runs and sweeps read back and laid side by side: tables, CSV files, figures. Start at `analyze`."""
