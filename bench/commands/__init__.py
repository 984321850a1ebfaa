"""What each command does with its words. A command imports what is heavy inside itself, so that help stays quick."""
