"""Mixing: how new samples are made from drawn rows; so far, fusion of feature vectors (paper, sec. 4.2)."""
