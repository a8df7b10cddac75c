"""The same preparation on Spark: the rows are read by the same SQL, what is shuffled is Spark's."""
