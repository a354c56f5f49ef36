"""From runs to case records, from case records to tables."""
