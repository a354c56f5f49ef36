"""From photographs to masks, with a trained network."""
