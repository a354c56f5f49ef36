"""One page of everything that a set of runs has: a single file that opens offline, made of the reports' frames."""
