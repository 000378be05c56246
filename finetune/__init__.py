"""Phase II: from cached features to a better FC layer."""
