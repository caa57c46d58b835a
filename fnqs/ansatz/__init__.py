"""What the wave function is made of: message passing, orbitals, pairs and the Jastrow factor."""
