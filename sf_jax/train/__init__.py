"""Supervised training: objective, step, checkpoints, loop. Data reaches it as an iterator."""
