"""One file per format: from a file to frames, with what ASE's reader of it passes over."""
