"""Checkpoint files: what they hold, how they are read, and how network and images are rebuilt from one."""
