"""The load balancer: from the labels of services to the configuration of nginx."""
