"""Predict masks: from a photograph to probabilities, to cleaned masks, to files."""
