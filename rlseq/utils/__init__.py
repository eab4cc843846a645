"""Helpers without reinforcement learning: files, masks, names, progress, arguments."""
