"""One file an experiment: its whole configuration and the table it makes."""
