"""Plumbing that every stage uses: files, config, plan, device, command line."""
