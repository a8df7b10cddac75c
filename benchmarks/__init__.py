"""The benchmark suite: tasks on frozen user vectors, their baselines, intervals and the report."""
