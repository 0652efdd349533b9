"""Build the decoder that all routers share: layers, paths, and the dispatcher that runs plans."""
