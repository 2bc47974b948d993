"""`unstill app`: a page where a picture moves. It reads what a person set, calls the library and shows the result."""
