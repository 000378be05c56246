"""The processes that `torchrun` starts: which one this is, its device, and how they meet."""
