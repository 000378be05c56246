"""zarr v3 and HDF5, either by suffix. Start at `detect`."""
