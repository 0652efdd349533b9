"""Training one model: the loop, its step, and what is made beside it: utility labels, supervision, backbones."""
