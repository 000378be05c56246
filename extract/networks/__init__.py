"""Networks whose class activation maps are exact: features, global average pooling, one FC layer.

Start at `registry`.
"""
