"""A script that a Python with mediapipe runs by path; it imports nothing of this package."""
