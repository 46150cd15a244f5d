"""Scripts that a Python with moderngl runs by path; they import nothing of this package."""
