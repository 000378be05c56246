"""Images that belong together, as frames of a track or pictures of a patient, and stay in one split.

Start at `named`, which says the group of each image; `drawing` holds out whole groups, and `tracks` notices
names of images that come in tracks.
"""
