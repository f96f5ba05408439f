# The operator's story: from the Debian package to the alert, and the cause found in all the places where one looks for it.
# systemd, Debian's Prometheus under it, and a tenant in a slice of its own are real.

. tests/system/guest.sh

refusal=

story_package() {
    [[ -e $folder/old.deb ]] || build_package
}

# Who looks after this host may see everything over loopback.
story_installed() {
    installed && inside sed -i 's/^scope = .*/scope = "full"/' /etc/ioasd/ioasd.toml && inside systemctl restart ioasd.service &&
        wait_for 20 serving && inside useradd --system --groups ioasd vm1
}

# The rules of the package, in a hurry, under Debian's own unit.
prometheus_is_set_up() {
    inside cp -r /usr/share/doc/ioasd/examples/prometheus /mnt/rules || return 1
    hurried "$folder/rules" "$folder/hurried"
    cat >"$folder/hurried/prometheus.yml" <<YAML
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [/etc/prometheus/recording.yml, /etc/prometheus/alerts.yml]
$(sed '/^#/d; /scrape_interval/d' "$folder/rules/scrape.yml")
YAML
    inside sh -c 'cp /mnt/hurried/*.yml /etc/prometheus/' && inside promtool check config /etc/prometheus/prometheus.yml &&
        inside systemctl start prometheus.service && wait_for 30 story_value_is 1 'up{job="ioasd"}'
}

# story_value_is NUMBER QUERY
story_value_is() {
    inside promtool query instant http://127.0.0.1:9090 "$2" 2>/dev/null | grep -q "=> $1 @"
}

quota() {
    echo "$1{level=\"tenant\",tenant=\"vms\",resource=\"pinned\"}"
}

# limits_are SOFT HARD: of what the tenant may have pinned.
limits_are() {
    inside ioasd ctl limits --tenant vms --json | tr -d ' \n' | grep -q "\"pinned\":{[^}]*\"hard\":$2,[^}]*\"soft\":$1,"
}

reload_takes_a_tenant() {
    inside tee -a /etc/ioasd/ioasd.toml >/dev/null <<TOML
[[tenant]]
name = "vms"
cgroup = "/vms.slice"
limits = { pinned = { soft = "2MiB", hard = "4MiB" } }
TOML
    local before
    before=$(property MainPID)
    inside systemctl reload ioasd.service && wait_for 10 limits_are $((2 << 20)) $((4 << 20)) && [[ $(property MainPID) == "$before" ]] &&
        wait_for 10 story_value_is 0 "$(quota ioasd_quota_refusals_total)"
}

# systemd tells that the reload failed and why, as WHY says; the agent goes on with what it had.
reload_refuses_what_is_wrong() {
    inside sed -i 's/hard = "4MiB"/hard = "lots"/' /etc/ioasd/ioasd.toml
    ! inside systemctl reload ioasd.service || return 1
    [[ $(property ReloadResult) == exit-code ]] && serving && limits_are $((2 << 20)) $((4 << 20)) || return 1
    inside journalctl --sync
    inside journalctl --unit ioasd.service --output=cat | grep -F "$1" || return 1
    inside systemctl kill --signal=HUP ioasd.service && wait_for 10 told_in_events not-reloaded "$1" &&
        limits_are $((2 << 20)) $((4 << 20)) && inside sed -i 's/hard = "lots"/hard = "4MiB"/' /etc/ioasd/ioasd.toml &&
        inside systemctl reload ioasd.service && [[ $(property ReloadResult) == success ]]
}

# told_in_events KIND TEXT
told_in_events() {
    inside ioasd ctl events | grep -F "$1" | grep -qF "$2"
}

# A machine of another user, in a slice of its own, wants more than its tenant may have; `refusal` is what it was told.
client_maps_up_to_the_refusal() {
    inside ioasd ctl log info,ioasd::uapi=debug && inside systemd-run --quiet --unit=vm1 --slice=vms.slice --uid=vm1 \
        sh -c 'sleep infinity | /mnt/hold /run/ioasd/ioasd.sock 16 16' && wait_for 20 vm_says '^holding' || return 1
    refusal=$(vm_said | sed -nE 's/^after 4 of 16 areas: IOAS_MAP_FILE refused \(over-account-limit\): //p')
    echo "$refusal"
    [[ $refusal == *"tenant vms"*"needs $((1 << 20)) bytes"*"has $((4 << 20)) of the $((4 << 20)) it may have"* ]]
}

vm_said() {
    inside journalctl --sync
    inside journalctl --unit vm1.service --output=cat
}

vm_says() {
    vm_said | grep -q "$1"
}

firing() {
    wait_for 60 story_value_is 1 "ALERTS{alertname=\"$1\", alertstate=\"firing\", level=\"tenant\", tenant=\"vms\", resource=\"pinned\"}"
}

# What the operator is sent says who it is.
alert_names_the_tenant() {
    get_inside 9090 /api/v1/alerts | grep -F '"summary":"tenant vms on 127.0.0.1:9884 was refused pinned"'
}

same_text_in_events_and_journal() {
    told_in_events over-account-limit "$refusal" || told_in_events refused "$refusal" || return 1
    inside journalctl --sync
    inside journalctl --unit ioasd.service --output=verbose IOASD_COMMAND=IOAS_MAP_FILE | grep -F "IOASD_REFUSAL=$refusal"
}

same_text_in_explain() {
    inside ioasd ctl explain 1 --length 1MiB | grep -F "$refusal"
}

found_on_the_page() {
    cp tests/system/page.py tests/system/browser.py "$folder/" && inside python3 /mnt/page.py /mnt http://127.0.0.1:9884 found "$refusal" /mnt/shots &&
        mkdir -p "$target/system-tests/page" && cp "$folder"/shots/*.png "$target/system-tests/page/"
}

# The operator gives the tenant more: the map would succeed, and the soft limit's alert ends.
more_is_given() {
    inside sed -i 's/soft = "2MiB", hard = "4MiB"/soft = "32MiB", hard = "64MiB"/' /etc/ioasd/ioasd.toml
    inside systemctl reload ioasd.service && wait_for 10 limits_are $((32 << 20)) $((64 << 20)) || return 1
    inside ioasd ctl explain 1 --length 1MiB | grep 'would succeed' && vm_says '^holding' &&
        wait_for 30 story_value_is 0 'count(ALERTS{alertname="IoasdSoftLimit"}) or vector(0)'
}

if ! need promtool prometheus; then
    skip "the operator's story" "prometheus is not installed, and not root with apt-get"
elif boots "the operator's story"; then
    check "the package is there" story_package
    check "the operator installs it and opens the page to this host" story_installed
    check "Debian's Prometheus scrapes the agent, with the rules of the package" prometheus_is_set_up
    check "a reload takes a tenant with limits" reload_takes_a_tenant
    check "a reload refuses what is wrong, says so, and keeps what was" reload_refuses_what_is_wrong \
        '/etc/ioasd/ioasd.toml:17:21: tenant.limits: expected a limit such as'
    check "a client of that tenant maps up to the refusal, and is told why" client_maps_up_to_the_refusal
    check "the alert on the soft limit fires" firing IoasdSoftLimit
    check "the alert on the refusal fires" firing IoasdQuotaRefused
    check "the alert says who was refused" alert_names_the_tenant
    check "events and journal have the same text" same_text_in_events_and_journal
    check "ioasd ctl explain has the same text" same_text_in_explain
    if need chromium chromium; then
        check "the page has the same text" found_on_the_page
    else
        skip "the page has the same text" "chromium is not installed, and not root with apt-get"
    fi
    check "given more, the map would succeed, and the alert ends" more_is_given
    shut_down
fi
