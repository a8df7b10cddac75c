"""The HTTP service: a frozen encoder and an exact index behind FastAPI."""
