"""Which formats there are, which of them are read, and of which a file is."""
