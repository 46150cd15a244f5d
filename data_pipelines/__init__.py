"""Data for training: rendered faces, other people's data, the dataset builder and the loader."""
