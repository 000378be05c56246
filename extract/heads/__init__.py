"""Heads that are one FC layer or have further parts: what they compute, and how a network holds one."""
