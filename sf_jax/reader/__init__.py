"""Image → FaceAction with any model: finding, framing, reading, result files."""
