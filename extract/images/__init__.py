"""From image files to batches on the device: decoding, transforms, views. Start at `image_set`."""
