"""Bounds of what may be asked of a decoder; imports nothing, for those who only check arguments."""

# Far above, the noise leaves no bit of the scores, and then float32 itself, in which infinity less
# infinity would be the score of banned tokens.
MOST_TEMPERATURE = 1e6
SEEDS = 2**32  # how many there are, from 0 on
