"""Statistics of scores, on plain arrays and data frames: intervals, paired tests, equivalence, ties."""
