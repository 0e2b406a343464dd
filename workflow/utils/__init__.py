"""Plumbing that every stage uses and that knows no science: stores, options, threads, logs."""
