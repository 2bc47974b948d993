"""`unstill app`: a web page that animates a picture by calling the library."""
