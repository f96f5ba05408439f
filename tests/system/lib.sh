# What every part of the system tests uses: counting, installing by package name, waiting, asking the agent.

passed=0 failed=0 skipped=0

skip() {
    skipped=$((skipped + 1))
    echo "SKIP: $1: $2"
}

# check NAME COMMAND...: one test. What it prints is shown if it fails.
check() {
    local name=$1
    shift
    if "$@" >"$folder/check.log" 2>&1; then
        passed=$((passed + 1))
        echo "ok: $name"
    else
        failed=$((failed + 1))
        echo "FAILED: $name"
        sed 's/^/    /' "$folder/check.log" | tail -40
    fi
}

# need COMMAND PACKAGE: whether the command is there, or could be installed.
need() {
    command -v "$1" >/dev/null && return
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
    (apt-get update && apt-get install -y --no-install-recommends "$2") >"$folder/apt.log" 2>&1 && command -v "$1" >/dev/null
}

# need_cargo_deb: what builds Debian packages, in PATH.
need_cargo_deb() {
    command -v cargo-deb >/dev/null || PATH=$target/system-tests/bin:$PATH
    command -v cargo-deb >/dev/null || cargo install --quiet --locked --version 3.8.0 --root "$target/system-tests" cargo-deb
}

# need_python PACKAGE...: a virtual environment with these packages, its programs in PATH.
need_python() {
    local venv=$target/system-tests/python
    [[ -x $venv/bin/python ]] || python3 -m venv "$venv" >"$folder/pip.log" 2>&1 || return 1
    "$venv/bin/pip" install --quiet "$@" >>"$folder/pip.log" 2>&1 || return 1
    PATH=$venv/bin:$PATH
}

# wait_for SECONDS COMMAND...: repeats it until it succeeds.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}

# get PORT PATH: the body of an answer.
get() {
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
    sed '1,/^\r$/d' <&3
    exec 3>&-
}

# start_agent NAME: an agent of its own; its port is in port_NAME, its number in agent_NAME.
start_agent() {
    local port=$((20000 + RANDOM % 20000))
    mkdir -p "$folder/$1"
    "$ioasd" serve --socket "$folder/$1/ioasd.sock" --admin "127.0.0.1:$port" 2>"$folder/$1/log" &
    printf -v "agent_$1" %s $!
    printf -v "port_$1" %s "$port"
    running+=($!)
    wait_for 20 get "$port" /readyz >/dev/null 2>&1
}

# hold SOCKET MEBIBYTES [AREAS]: a client that maps so much, in so many parts, and holds it until it is killed; its number is in holder.
hold() {
    rm -f "$folder/held"
    sleep infinity | "$holder_program" "$@" >"$folder/held" 2>&1 &
    holder=$!
    running+=("$holder")
    wait_for 20 grep -q '^holding' "$folder/held"
}

# hurried FROM TO: the rules for Prometheus with waits of seconds instead of minutes.
hurried() {
    mkdir -p "$2"
    sed 's/interval: 30s/interval: 1s/' "$1/recording.yml" >"$2/recording.yml"
    sed -E 's/for: [0-9]+m/for: 2s/; s/- name: ioasd-alerts/&\n    interval: 1s/' "$1/alerts.yml" >"$2/alerts.yml"
}
