"""The command line: one file per verb, and what they share. Results go to stdout, everything else to stderr."""
