"""Forming a swarm: swarmkit beside a shell script, Ansible and pyinfra, on the same bare machines."""
