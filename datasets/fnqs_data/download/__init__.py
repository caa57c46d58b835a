"""Public data bases, fetched over HTTP when the user asks for it."""
