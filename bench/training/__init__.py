"""Train one model: the loop, its step, utility labels, supervision and frozen backbones."""
