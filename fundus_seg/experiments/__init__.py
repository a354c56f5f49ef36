"""Many runs: which ones an experiment has, where they stand, and who works on them."""
