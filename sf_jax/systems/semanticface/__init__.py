"""SemanticFace (arXiv 2603.14827): image → rationale and ARKit coefficients."""
