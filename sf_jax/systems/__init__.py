"""One folder a system; systems never import each other."""
