"""The command line. A command imports what is heavy inside itself, so that help stays quick."""
