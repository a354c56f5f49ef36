"""What is told about results: operators compared, measured beside published."""
