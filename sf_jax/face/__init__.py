"""What a facial action is: the 61 channels, their file formats, their words and their measures.

- `channels`: the table of the 61 channels; everything else addresses them through it.
- `timecode`, `livelink`: Live Link Face CSV files, with real rates and timecode.
- `answers`: what a model says, read strictly, and the lines of MS-SWIFT files.
- `describe`: coefficients in words, and back.
- `agreement`: whether words and values say the same.
- `metrics`: how far predictions lie from labels.
- `one_euro`: less jitter over time.

This room knows nothing of models and needs numpy only.
"""
