"""Raw logs: read, checked, staged in DuckDB and written as a corpus."""
