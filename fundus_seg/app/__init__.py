"""The local page: photographs are dropped on it and measured as `predict` measures them, on this machine alone."""
