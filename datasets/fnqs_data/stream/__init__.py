"""The order in which a training sees the records of a data set."""
