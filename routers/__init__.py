"""Routers, one family a file. Each module registers its own; see README.md to add one."""
