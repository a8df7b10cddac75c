"""The vectors of a generation on Milvus: users and items searched there, the rest as ever."""
