"""Other people's checkpoint formats, both ways."""
