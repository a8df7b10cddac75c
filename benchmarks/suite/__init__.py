"""One suite: tasks, models, scores, summary."""
