"""Objectives, one a file: what a training step minimises."""
