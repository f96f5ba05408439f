//! The configurations of `config/examples`: `check-config` accepts each, and it comes to what its head says.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ioasd::actors::policy::{Identity, Policy};
use ioasd::actors::rights::Right;
use ioasd::cli::agent::settings;
use ioasd::config::effective::{Effective, effective};
use ioasd::config::load::Flags;
use ioasd::config::place::Environment;
use ioasd::storage::ledger::limits::Limit;
use ioasd::storage::ledger::resource::Resource;
use ioasd::storage::source::{SourceKind, Strength};
use rustix::process::Uid;
use tempfile::TempDir;

/// The line behind which the head tells what the configuration comes to.
const COMES_TO: &str = "# It comes to:";

/// Where an example has its token, which a test puts elsewhere.
const TOKEN: &str = "/etc/ioasd/admin-token";

struct Example {
    name: String,
    text: String,
    folder: TempDir,
}

impl Example {
    fn file(&self) -> PathBuf {
        self.folder.path().join("ioasd.toml")
    }

    /// Any folder is as good as the one that the example names.
    fn token(&self) -> String {
        self.folder.path().join("token").display().to_string()
    }

    fn effective(&self) -> Effective {
        let flags = Flags { config: Some(self.file()), ..Flags::default() };
        effective(&flags, &Environment::new(Uid::from_raw(1000), |_| None)).unwrap()
    }

    /// What the head says.
    fn promises(&self) -> Vec<(&str, &str)> {
        let head = self.text.lines().skip_while(|line| *line != COMES_TO).skip(1);
        let lines = head.map_while(|line| line.strip_prefix("#   "));
        lines.map(|line| line.split_once(" = ").unwrap()).collect()
    }
}

/// Each of them, in a folder of its own with a token.
fn examples() -> Vec<Example> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let example = |path: PathBuf| {
        let folder = tempfile::tempdir().unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let example = Example { name, text: std::fs::read_to_string(path).unwrap(), folder };
        std::fs::write(example.token(), "the-token-of-an-example\n").unwrap();
        std::fs::set_permissions(example.token(), std::fs::Permissions::from_mode(0o400)).unwrap();
        std::fs::write(example.file(), example.text.replace(TOKEN, &example.token())).unwrap();
        example
    };
    files.map(example).collect()
}

fn named(name: &str) -> Example {
    examples().into_iter().find(|example| example.name == name).unwrap()
}

#[test]
fn check_config_accepts_every_example() {
    let examples = examples();
    assert!(examples.len() >= 5, "only {} examples", examples.len());
    for example in examples {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ioasd"));
        for variable in ["IOASD_SOCKET", "IOASD_CONFIG", "IOASD_LOG"] {
            command.env_remove(variable);
        }
        let checked = command.arg("check-config").arg(example.file()).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.success(), "{}: {said}", example.name);
    }
}

#[test]
fn every_example_comes_to_what_its_head_says() {
    for example in examples() {
        let Effective { settings, .. } = example.effective();
        let promises = example.promises();
        assert!(promises.len() >= 7, "{}: the head promises {promises:?}", example.name);
        for (key, promised) in promises {
            let setting =
                settings.iter().find(|setting| format!("{}.{}", setting.section, setting.key) == key);
            let value = setting.map(|setting| setting.value.replace(&example.token(), TOKEN));
            assert_eq!(value.as_deref(), Some(promised), "{}: {key}", example.name);
        }
    }
}

/// A process of that user, group and control group, and the tenant that it belongs to, by name.
fn tenant(policy: &Policy, (uid, gid): (u32, u32), cgroup: &str, exe: &str) -> String {
    let (cgroup, exe) = (Some(cgroup.to_owned()), Some(exe.into()));
    policy.tenant_of(&Identity { uid, gid, cgroup, exe }).label().to_owned()
}

#[test]
fn the_host_of_virtual_machines_serves_its_slices_and_nobody_else() {
    let settings = settings(&named("vmm-host.toml").effective().config);
    let policy = Policy::new(settings.rules.clone());
    let of = |uid, cgroup: &str, exe: &str| tenant(&policy, (uid, uid), cgroup, exe);
    let qemu = "/usr/bin/qemu-system-x86_64";
    assert_eq!(of(64055, "/customers.slice/customers-gold.slice/vm-7.scope", qemu), "gold");
    assert_eq!(of(64055, "/customers.slice/customers-silver.slice/vm-9.scope", qemu), "silver");
    assert_eq!(of(988, "/system.slice/guest-backup.service", "/usr/bin/guest-backup"), "backup");
    assert_eq!(of(988, "/user.slice", "/usr/bin/guest-backup"), "others");
    assert_eq!(of(1000, "/user.slice", qemu), "others");
    let rights = |name: &str| settings.rules.iter().find(|rule| rule.name == name).unwrap().rights;
    assert_eq!((rights("others").connect, rights("backup").export), (Right::Denied, Right::Denied));
    assert!(
        rights("gold").sources.has(SourceKind::Hugetlb) && !rights("silver").sources.has(SourceKind::Hugetlb)
    );
    assert!(rights("gold").strengths.has(Strength::Longterm));
    let limit = |name: &str| {
        let (_, limits) = settings.limits.named.iter().find(|(tenant, _)| tenant.label() == name).unwrap();
        limits.tenant.get(Resource::Pinned)
    };
    assert_eq!(limit("gold"), Limit { soft: 120 << 30, hard: 128 << 30 });
    assert_eq!(limit("silver").hard + limit("gold").hard + limit("backup").hard, 200 << 30);
    assert_eq!(settings.limits.host.get(Resource::Pinned).hard, 224 << 30);
}

#[test]
fn mock_hardware_is_for_the_jobs_and_private_memory_for_who_is_named() {
    let ci = settings(&named("ci-mock.toml").effective().config);
    let policy = Policy::new(ci.rules.clone());
    assert_eq!(tenant(&policy, (5000, 2001), "/", "/bin/sh"), "jobs");
    assert_eq!(tenant(&policy, (5000, 5000), "/", "/bin/sh"), "others");
    let process = settings(&named("process-memory.toml").effective().config);
    let policy = Policy::new(process.rules.clone());
    let of = |uid, cgroup: &str, exe: &str| tenant(&policy, (uid, uid), cgroup, exe);
    assert_eq!(of(990, "/system.slice/spdk.service", "/usr/bin/spdk_tgt"), "spdk");
    assert_eq!(of(991, "/user.slice", "/usr/bin/dpdk-testpmd"), "dpdk");
    assert_eq!(of(990, "/user.slice", "/usr/bin/spdk_tgt"), "files", "not the service");
    let developer = settings(&named("developer.toml").effective().config);
    let policy = Policy::new(developer.rules);
    assert_eq!(tenant(&policy, (1000, 1000), "/", "/usr/bin/qemu-system-x86_64"), "vmm");
    assert_eq!(tenant(&policy, (1000, 1000), "/", "/usr/bin/python3"), "me");
    let may_map = |name: &str| process.rules.iter().find(|rule| rule.name == name).unwrap().rights.sources;
    assert!(may_map("spdk").has(SourceKind::Process) && !may_map("files").has(SourceKind::Process));
}
