"""A thin layer over nats-py: what atto asks of the broker, and the broker itself as a child process."""
