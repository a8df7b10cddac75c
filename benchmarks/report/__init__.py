"""Pages and tables out of result files."""
