"""The feature store: one format for cached feature maps, class activation maps and pooled features."""

__version__ = "0.1.0"
