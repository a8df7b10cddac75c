"""Five hard tasks for next-item models over a ladder of sizes (Zhang et al. 2024)."""
