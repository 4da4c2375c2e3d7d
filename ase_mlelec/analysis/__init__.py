"""Analysis of runs: evaluation of trajectories, statistics of atomic densities of states, figures."""
