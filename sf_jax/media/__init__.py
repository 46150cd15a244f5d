"""Files from outside: images and video, cutting and resizing. Knows no face and no model."""
