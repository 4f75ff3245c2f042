"""The only place where a score is made: evidence of each cell -> one anomaly map -> one score -> the verdict."""
