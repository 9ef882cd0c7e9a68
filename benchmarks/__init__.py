"""What swarmkit claims about speed, as commands that anyone can run."""
