"""One file for everything that is known of a family of models; `registry` puts the files together."""
