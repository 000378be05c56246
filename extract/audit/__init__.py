"""Faults of a data set, found before training: bad files, copies, empty classes. Start at `report`."""
