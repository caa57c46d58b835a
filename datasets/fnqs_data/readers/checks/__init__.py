"""What no file of dense hydrogen says: wrong units and damaged numbers."""
