"""What the commands of all packages share: errors, settings, files and how numbers are written."""
