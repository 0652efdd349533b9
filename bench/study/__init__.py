"""Studies: a claim, the grid of cells that tests it, and a page with the verdict.

Only `cells` needs torch.
"""
