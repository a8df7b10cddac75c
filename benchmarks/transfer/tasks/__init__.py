"""The tasks: a module for each family, with the config that a suite's YAML writes."""
