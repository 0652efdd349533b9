"""Run cells in processes: on this machine, on a Ray cluster, or as Slurm jobs."""
