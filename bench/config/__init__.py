"""Read suites and their parts from YAML, validate and freeze them. Imports no torch."""
