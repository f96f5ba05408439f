# A real Prometheus over two agents: the metrics, the rules, the alerts and every query of the dashboard.

metrics_are_what_prometheus_expects() {
    get "$port_one" /metrics >"$folder/metrics" && [[ -s $folder/metrics ]] && promtool check metrics <"$folder/metrics"
}

start_prometheus() {
    prometheus_port=$((port_one + 1))
    hurried deploy/prometheus "$folder"
    cat >"$folder/prometheus.yml" <<YAML
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [$folder/recording.yml, $folder/alerts.yml]
scrape_configs:
  - job_name: ioasd
    static_configs:
      - targets: ["127.0.0.1:$port_one", "127.0.0.1:$port_two"]
YAML
    promtool check config "$folder/prometheus.yml" >/dev/null || return 1
    prometheus --config.file="$folder/prometheus.yml" --storage.tsdb.path="$folder/data" \
        --web.listen-address="127.0.0.1:$prometheus_port" >"$folder/prometheus.log" 2>&1 &
    running+=($!)
    wait_for 30 value_is 2 'sum(up{job="ioasd"})'
}

# value_is NUMBER QUERY: whether this is the value of the one sample that the query gives.
value_is() {
    promtool query instant "http://127.0.0.1:$prometheus_port" "$2" 2>/dev/null | grep -q "=> $1 @"
}

both_agents_are_summed() {
    "$holder_program" "$folder/two/ioasd.sock" 1 </dev/null &&
        hold "$folder/one/ioasd.sock" 8 && hold "$folder/two/ioasd.sock" 4 || return 1
    wait_for 30 value_is $((12 << 20)) 'sum(ioasd_pinned_bytes)' && value_is 2 'count(ioasd_build_info)'
}

rules_record() {
    wait_for 30 value_is $((12 << 20)) 'sum(instance:ioasd_pinned_bytes:sum)' &&
        value_is $((12 << 20)) 'sum(account:ioasd_account_charged_bytes:sum)'
}

# Rates need two samples, so it may take a moment.
every_query_of_the_dashboard_works() {
    wait_for 30 python3 tests/system/dashboard.py deploy/grafana/ioasd.json "http://127.0.0.1:$prometheus_port"
}

alert_fires_when_an_agent_dies() {
    kill -KILL "$agent_two"
    wait_for 60 value_is 1 'count(ALERTS{alertname="IoasdDown", alertstate="firing"})' && value_is 1 'count(ALERTS{alertstate="firing"})'
}

# Counters that are lower than before tell of the restart: one client now, two before.
alert_fires_when_it_was_restarted() {
    "$ioasd" serve --socket "$folder/two/ioasd.sock" --admin "127.0.0.1:$port_two" 2>"$folder/two/log" &
    running+=($!)
    wait_for 30 get "$port_two" /livez >/dev/null 2>&1
    "$holder_program" "$folder/two/ioasd.sock" 1 </dev/null &&
        wait_for 60 value_is 1 'count(ALERTS{alertname="IoasdRestarted", alertstate="firing"})'
}

documented() {
    local missing=0 name
    for name in $(sed -nE 's/.*- alert: ([A-Za-z]+)/\1/p' deploy/prometheus/alerts.yml); do
        grep -q "^### $name\$" docs/operating.md || { echo "$name is not in docs/operating.md"; missing=1; }
        grep -q "alertname: $name\$" deploy/prometheus/alerts_test.yml || { echo "$name is not tested"; missing=1; }
    done
    return $missing
}

check "every alert is explained and has a test" documented
if need promtool prometheus; then
    check "promtool finds the rules right" promtool check rules deploy/prometheus/alerts.yml deploy/prometheus/recording.yml
    check "each alert fires on what it is for, and not before" promtool test rules deploy/prometheus/alerts_test.yml
    check "two agents start" start_agent one
    check "two agents start, the second" start_agent two
    check "promtool finds nothing wrong with /metrics" metrics_are_what_prometheus_expects
    check "prometheus scrapes both agents" start_prometheus
    check "one prometheus sums over both agents" both_agents_are_summed
    check "the recording rules record" rules_record
    check "every query of the dashboard gives an answer" every_query_of_the_dashboard_works
    check "an alert fires when an agent dies, and no other" alert_fires_when_an_agent_dies
    check "an alert fires when it was restarted" alert_fires_when_it_was_restarted
else
    skip "prometheus" "not installed, and not root with apt-get"
fi
