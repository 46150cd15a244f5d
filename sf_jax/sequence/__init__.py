"""Token sequences: tokenizers, chat form, rows, packing. Knows no channel and no prompt."""
