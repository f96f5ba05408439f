# The agent and the demo as processes of this machine, and as another user.

agent_ends_on_sigterm() {
    kill -TERM "$agent_alone"
    wait "$agent_alone"
}

demo_as_nobody() {
    (cd "$folder" && setpriv --reuid=65534 --regid=65534 --clear-groups ./ioasd demo --size 16MiB)
}

probe() {
    bash deploy/kubernetes/base/probe "$1" "$2"
}

probe_fails() {
    ! probe "$@"
}

check "the agent starts and is ready" start_agent alone
check "the probe of Kubernetes finds it alive" probe /livez "$port_alone"
check "the probe of Kubernetes finds it ready" probe /readyz "$port_alone"
check "the probe of Kubernetes fails on what is not there" probe_fails /nowhere "$port_alone"
check "the agent ends on SIGTERM with exit code 0" agent_ends_on_sigterm
check "the probe of Kubernetes fails when the agent is gone" probe_fails /livez "$port_alone"
check "the demo runs as the user who started this" "$ioasd" demo --size 16MiB
if [[ $(id -u) == 0 ]] && command -v setpriv >/dev/null; then
    check "the demo runs as nobody" demo_as_nobody
else
    skip "the demo as nobody" "needs root and setpriv"
fi
