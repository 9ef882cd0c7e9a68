# Healthy: the registry listens on its port, and says that its storage works.
# The port itself would want a certificate, and would log each visit without one as an error. bash
# opens the other connection by itself, so the image needs no HTTP client.
grep -qE ':1388 [0-9A-F]+:0000 0A ' /proc/net/tcp /proc/net/tcp6 || exit 1
exec 3<>/dev/tcp/127.0.0.1/5001 || exit 1
printf 'GET /debug/health HTTP/1.0\r\n\r\n' >&3
read -r -t 3 _ status _ <&3
[ "$status" = 200 ]
