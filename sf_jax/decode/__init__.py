"""Constrained decoding: grammar, slot program, generation. Channels reach it as data."""
