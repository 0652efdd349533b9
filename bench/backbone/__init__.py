"""The one decoder that every router stands in: layers, paths, and the dispatcher that runs a plan."""
