"""Suites and what they are made of: read from YAML, validated, frozen. Imports no torch."""
