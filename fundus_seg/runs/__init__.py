"""A run on disk: its folder, who may write there, which run it is, where it came from."""
