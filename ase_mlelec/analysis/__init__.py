"""What a run tells: evaluation of trajectories, statistics of atomic densities of states, figures."""
