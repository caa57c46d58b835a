"""One frame as a record: its labels under all their names, its isotopes and its units."""
