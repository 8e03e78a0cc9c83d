"""The command line. One file a verb; what is heavy is imported inside the verb's function."""
