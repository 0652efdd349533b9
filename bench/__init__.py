"""One gated decoder, one FLOPs budget, every router: the bench behind `token-routing-bench`."""

__version__ = "0.1.0"
