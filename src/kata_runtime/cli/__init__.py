"""The command line: parses argv, calls the packages below, and prints the result or one line on the failure."""
