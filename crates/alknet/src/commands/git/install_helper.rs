//! `alknet git install-helper`

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::unistd::{AccessFlags, access};
use serde_json::json;

use crate::{failure::Failure, git::remote_helper::NAME, output};

/// git's setting by which it follows submodules to `alknet://` as it does to `https://`.
const ALLOW: &str = "protocol.alknet.allow";

/// Teach git on this machine to clone from alknet://NODE/REPOSITORY
///
/// Links this program under the name git-remote-alknet into a folder where git finds it, and
/// lets submodules come from alknet:// as well. Which transport is used is git's setting
/// alknet.via, or the variable ALKNET_VIA.
///
/// Examples:
///   alknet git install-helper
///   alknet git install-helper --dir ~/bin --no-config
///   git clone alknet://example.org/team/notes
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The folder to link it into [default: the one of this program, or ~/.local/bin]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave git's own settings alone
    #[arg(long)]
    no_config: bool,
    /// Replace whatever has that name
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let program = program()?;
    let folder = match &args.dir {
        Some(folder) => std::path::absolute(folder)?,
        None => folder(&program)?,
    };
    fs::create_dir_all(&folder).map_err(|error| at(&folder, error))?;
    let path = folder.join(NAME);
    install(&program, &path, args.force)?;
    let found = searched().any(|dir| same(&dir, &folder));
    let allowed = !args.no_config && allow_submodules();
    if args.json {
        let line = json!({ "path": path, "found": found, "submodules": allowed });
        return Ok(output::json(&line)?);
    }
    output::line(path.display())?;
    if !found {
        let folder = folder.display();
        output::note(format!("git does not find it there: add {folder} to PATH"))?;
    }
    if !allowed {
        output::note(format!(
            "git refuses submodules from alknet:// until: git config --global {ALLOW} always"
        ))?;
    }
    Ok(())
}

/// This program by the name it is found by: what that leads to may change with its version.
fn program() -> io::Result<PathBuf> {
    let here = env::current_exe()?;
    let name = here.file_name().unwrap_or_default();
    let named = searched().map(|dir| dir.join(name));
    Ok(named.into_iter().find(|path| same(path, &here)).unwrap_or(here))
}

fn searched() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).filter(|dir| dir.is_absolute()).collect::<Vec<_>>().into_iter()
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// The program's own folder, where this user may write; else the one that users have for
/// their programs.
fn folder(program: &Path) -> Result<PathBuf, Failure> {
    let own = program.parent().filter(|dir| access(*dir, AccessFlags::W_OK).is_ok());
    let mine = || Some(etcetera::home_dir().ok()?.join(".local/bin"));
    own.map(Path::to_path_buf)
        .or_else(mine)
        .ok_or_else(|| Failure::new("there is no folder to put it in").hint("--dir names one"))
}

/// Makes `path` lead to the program, in one step: git may be looking for it.
fn install(program: &Path, path: &Path, force: bool) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Ok(_) if same(path, program) => return Ok(()),
        Ok(found) if !found.is_symlink() && !force => {
            return Err(Failure::new(format!("{} is something else", path.display()))
                .hint("--force replaces it"));
        }
        _ => {}
    }
    let new = path.with_extension(format!("{}.new", std::process::id()));
    // A folder that is moved as a whole keeps working.
    let beside = program.parent() == path.parent();
    let target = program.file_name().filter(|_| beside).map_or(program, Path::new);
    symlink(target, &new)
        // There are file systems without links.
        .or_else(|_| fs::copy(program, &new).map(drop))
        .and_then(|()| fs::rename(&new, path))
        .map_err(|error| {
            let _ = fs::remove_file(&new);
            at(path, error).hint("--dir names another folder")
        })
}

fn at(path: &Path, error: io::Error) -> Failure {
    Failure::from(error).context(path.display().to_string())
}

/// Whether git follows submodules to `alknet://`, by now.
fn allow_submodules() -> bool {
    let config = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(["config", "--global"]).args(args);
        git.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    // What somebody has set is theirs.
    let set = config(&["--get", ALLOW]).is_ok_and(|status| status.success());
    set || config(&[ALLOW, "always"]).is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exists(path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok()
    }

    #[test]
    fn the_helper_is_a_link_that_can_be_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let (program, path) = (folder.path().join("alknet"), folder.path().join(NAME));
        fs::write(&program, "program").unwrap();
        for _ in 0..2 {
            install(&program, &path, false).unwrap();
            assert_eq!(fs::read_link(&path).unwrap(), Path::new("alknet"));
        }
        // One that leads elsewhere is an older one.
        let (other, linked) = (tempfile::tempdir().unwrap(), folder.path());
        let elsewhere = other.path().join(NAME);
        symlink("/nowhere", &elsewhere).unwrap();
        install(&program, &elsewhere, false).unwrap();
        assert_eq!(fs::read_link(&elsewhere).unwrap(), program);
        assert_eq!(fs::read_dir(linked).unwrap().count(), 2, "nothing is left over");
    }

    #[test]
    fn what_is_something_else_stays_unless_it_is_to_go() {
        let folder = tempfile::tempdir().unwrap();
        let (program, path) = (folder.path().join("alknet"), folder.path().join(NAME));
        fs::write(&program, "program").unwrap();
        fs::write(&path, "theirs").unwrap();
        assert!(install(&program, &path, false).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        install(&program, &path, true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"program");
        assert!(install(&program, &folder.path().join("missing").join(NAME), true).is_err());
        assert!(exists(&path));
    }
}
