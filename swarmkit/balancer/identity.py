"""By what names the balancer's two parts know each other, and the files that prove it to the other."""

from __future__ import annotations

# What the controller's certificate is for, and the common name of the proxies'.
CONTROLLER_NAME = "controller.swarmkit.internal"
PROXY_NAME = "swarmkit-lb-proxy"
# In the folder of a task's secrets: the authority that both trust, and the task's own certificate and key.
AUTHORITY_FILE = "swarmkit-lb-ca.pem"
IDENTITY_FILE = "swarmkit-lb-identity.pem"
