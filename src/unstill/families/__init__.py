"""One file for all facts about a family of models; `registry` combines the files."""
