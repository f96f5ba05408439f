# The page for people in a headless browser. Screenshots stay in target/system-tests/page, to be looked at.

# browse ARGUMENT...: the browser, which keeps its files in our folder and talks to nobody but the agent.
browse() {
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-background-networking \
        --user-data-dir="$folder/chromium" --virtual-time-budget=8000 "$@" 2>>"$folder/chromium.log"
}

# page_says TEXT QUERY: whether the text of the page, when it has settled, contains it.
page_says() {
    browse --dump-dom "http://127.0.0.1:$port_page/$2" >"$folder/dom" || return 1
    sed -E 's/<[^>]*>/ /g' "$folder/dom" | tr -s ' \n' ' ' >"$folder/text"
    grep -qF "$1" "$folder/text" || { cat "$folder/text"; return 1; }
}

page_starts() {
    printf '[admin]\nscope = "full"\n' >"$folder/page.toml"
    IOASD_CONFIG=$folder/page.toml start_agent page && hold "$folder/page/ioasd.sock" 3 &&
        held_at=$(sed -nE 's/^holding .* at (0x[0-9a-f]+)$/\1/p' "$folder/held") && [[ -n $held_at ]]
}

walk_is_shown() {
    page_says "$held_at is mapped: it leads to" "?domain=1&iova=$held_at" && grep -qE 'area 0x[0-9a-f]+ to 0x[0-9a-f]+, 3 MiB, rw, ready' "$folder/text" &&
        [[ $(grep -o '<tr class="end">' "$folder/dom" | wc -l) == 1 ]]
}

page_escapes() {
    page_says 'is not an address below 2^64' '?domain=1&iova=%3Cimg%20src%3Dx%3E' && ! grep -q '<img' "$folder/dom"
}

# shot NAME SIZE FLAG...: a screenshot of a walk.
shot() {
    local name=$1 size=$2
    shift 2
    mkdir -p "$target/system-tests/page"
    browse --window-size="$size" --screenshot="$target/system-tests/page/$name.png" "$@" "http://127.0.0.1:$port_page/?domain=1&iova=$held_at" &&
        [[ -s $target/system-tests/page/$name.png ]]
}

if need chromium chromium; then
    check "an agent with a page starts" page_starts
    check "the page says what is held" page_says 'pinned 3 MiB' ''
    check "the page walks an address" walk_is_shown
    check "the page says where a walk ends" page_says 'nothing is mapped at 0x7000000000: the entry of level' '?domain=1&iova=0x7000000000'
    check "the page shows wrong input as text" page_escapes
    check "a screenshot on a desk" shot desk 1200,900
    check "a screenshot in the dark" shot dark 1200,900 --blink-settings=preferredColorScheme=0
    check "a screenshot on a phone" shot phone 390,844
else
    skip "the page in a browser" "chromium is not installed, and not root with apt-get"
fi
