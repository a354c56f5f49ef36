"""The command line of fundus-seg: parse, load, one library call, print."""
