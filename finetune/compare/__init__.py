"""`analyze`: compare finished runs, or rank configurations of sweeps. Start at `analyze`."""
