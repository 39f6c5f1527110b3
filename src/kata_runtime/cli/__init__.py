"""The command line: argv to one call, its result to one line."""
