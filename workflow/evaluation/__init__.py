"""Pictures and tables of the result."""
