"""SuperFace (arXiv 2605.06179): judgements of rendered faces → a model that people prefer."""
