"""What makes a new sample of drawn rows: fusion of feature vectors (paper, sec. 4.2)."""
