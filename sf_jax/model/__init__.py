"""Declared weights, layers, towers and adapters: pure functions over pytrees of arrays."""
