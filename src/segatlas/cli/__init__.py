"""The command line. One file a command; what is heavy is imported inside the command's function."""
