"""The routes of the service, a file and a router for each group of paths."""
