"""Presets: each YAML holds only what differs from the defaults in `fundus_seg.config`, which are the paper's."""
