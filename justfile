# The commands of every day. Cargo does the work; nothing here is needed to build or test.

# List the commands.
default:
    @just --list

# Format, lints, documentation: what is quick.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace

# All tests.
test *ARGS:
    cargo test {{ARGS}}

# The whole path on this machine: agent, client and devices.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# Apply each named fault to the code and see that the tests catch it.
mutations:
    tests/mutations/run

# Rewrite docs/metrics.md from the catalogue.
metrics-page:
    IOASD_BLESS=1 cargo test --lib metrics_page

# Licences, advisories, duplicate versions (needs cargo-deny).
deny:
    cargo deny check

# All that must hold before a change lands.
ci:
    .ci/run
