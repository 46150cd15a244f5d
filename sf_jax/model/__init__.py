"""The Qwen3-VL architecture as pure functions over pytrees. Knows nothing of faces."""
