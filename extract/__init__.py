"""Phase I: from images to features. Start at `train`, then `dump`."""
