"""Phase I: from images to features."""
