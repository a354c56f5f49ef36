"""How far a prediction can be trusted: signals that need no truth, and what can be claimed from them. Plain arrays."""
