"""The suites that come with the bench, as YAML."""
