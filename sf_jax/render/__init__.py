"""Coefficients to pictures: rigs, rasteriser, random scenes and preview sheets."""
