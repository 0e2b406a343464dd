"""What tells clusters apart, and which of them can be relied on."""
