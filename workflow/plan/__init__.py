"""From the YAML of a config to what is run; only the Snakefile imports this."""
