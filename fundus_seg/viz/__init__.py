"""Pictures, drawn from arrays and data frames alone."""
