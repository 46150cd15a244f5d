"""The cartoonist: faces drawn from coefficients and a style, in many families of styles."""

from sf_jax.render.drawn.cartoonist import Framing, draw_drawn, draw_layer
from sf_jax.render.drawn.families import FAMILIES, random_style
from sf_jax.render.drawn.style import Style

__all__ = ["FAMILIES", "Framing", "Style", "draw_drawn", "draw_layer", "random_style"]
