//! The installed git as an engine.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use alknet_core::BoxFuture;
use alknet_host::PrivateSocket;
use tokio::process::Command;

use super::{
    Engine, EngineError, Exchange, Framing,
    complaint::Complaint,
    configuration::Configuration,
    intake::{Intake, Seen},
    run::{self, Hooks},
    version,
};
use crate::{hook, request::Service};

/// Room for what is taken from a repository beside what is pushed, to complete a thin pack.
const BESIDE: u64 = 1 << 30;

/// The `git` of the machine. Each exchange is a process of it, started without a shell and
/// with an environment of its own.
///
/// It goes by one file of configuration, which [`set_up`](Self::set_up) writes, and by the
/// repository's own, which nobody who pushes can write; what the safety of a push stands on is
/// given with each command, and holds whatever the repository's says.
#[derive(Debug, Clone)]
pub struct InstalledGit {
    program: PathBuf,
    configuration: Option<Configuration>,
}

/// What an [`InstalledGit`] needs to take pushes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Setup {
    /// A folder of its own, which is made if it is not there. What is in it is replaced.
    pub folder: PathBuf,
    /// The program that is run as a hook: one whose `main` calls [`hook::main`], as a rule
    /// [this process's own](crate::hook::program).
    pub hooks: PathBuf,
    /// Whose signatures of pushes are verified: a file as ssh-keygen(1) has it in the section
    /// "ALLOWED SIGNERS". Without it, no signed pushes are taken: git keeps what is signed, also
    /// where a push is refused.
    pub allowed_signers: Option<PathBuf>,
}

impl Setup {
    /// Without signers.
    pub fn new(folder: impl Into<PathBuf>, hooks: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), hooks: hooks.into(), allowed_signers: None }
    }
}

/// There is no git on the machine.
#[derive(Debug, thiserror::Error)]
#[error("no program git in {0:?}")]
pub struct NoGit(OsString);

/// A git cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The folder of the engine cannot be used.
    #[error("git cannot be set up in {folder}")]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Git does not say which one it is.
    #[error("git could not be run")]
    Run(#[source] io::Error),
    /// Git is older than it has to be to heed what guards a push.
    #[error("git is too old: 2.37 is needed, and this is {found:?}")]
    Old {
        /// What it says.
        found: String,
    },
}

impl InstalledGit {
    /// The first one on the `PATH` of this process. It takes no pushes until it is
    /// [set up](Self::set_up).
    pub fn find() -> Result<Self, NoGit> {
        let path = env::var_os("PATH").unwrap_or_default();
        let found = env::split_paths(&path).map(|dir| dir.join("git")).find(|git| git.is_file());
        found.map(Self::named).ok_or(NoGit(path))
    }

    /// The one of this name that is on the `PATH` when it is needed.
    pub fn named(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), configuration: None }
    }

    /// None at all: whatever it is asked for fails. With it, repositories are only browsed.
    pub fn none() -> Self {
        Self::named("")
    }

    /// Lets it take pushes: writes its configuration, with a new secret for the nonces of
    /// signed pushes, and its hooks. A git that is too old is refused. Waits for git and for
    /// the disk.
    pub fn set_up(self, setup: &Setup) -> Result<Self, SetupError> {
        version::check(&self.program)?;
        let Setup { folder, hooks, allowed_signers } = setup;
        let written = Configuration::write(folder, hooks, allowed_signers.as_deref());
        let configuration =
            written.map_err(|source| SetupError::Folder { folder: folder.clone(), source })?;
        Ok(Self { configuration: Some(configuration), ..self })
    }

    /// A command of it, which goes by no configuration but the engine's and the repository's.
    pub(crate) fn command(&self, repository: &Path) -> Command {
        let configuration = self.configuration.as_ref().map(|it| it.file.as_path());
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", "/nonexistent")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", configuration.unwrap_or_else(|| Path::new("/dev/null")))
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .current_dir(repository);
        command
    }

    /// Where a push asks at `socket`, it is guarded.
    fn service(&self, exchange: &Exchange, socket: Option<&Path>) -> Result<Command, EngineError> {
        let mut command = self.command(&exchange.repository);
        if let Some(socket) = socket {
            self.guard(&mut command, exchange, socket)?;
        }
        // Nothing is fetched from anywhere for it.
        command.env("GIT_ALLOW_PROTOCOL", "none").env("GIT_NO_LAZY_FETCH", "1");
        if exchange.framing == Framing::Stateful {
            // Bundles are fetched by HTTPS, relative to the address that git is given here.
            command.args(["-c", "uploadpack.advertiseBundleURIs=false"]);
        }
        command.args(match exchange.service {
            Service::UploadPack => ["upload-pack", "--strict"].as_slice(),
            Service::ReceivePack => &["receive-pack"],
            Service::UploadArchive => &["upload-archive"],
        });
        match exchange.framing {
            Framing::Stateful => &mut command,
            Framing::Advertisement => command.args(["--stateless-rpc", "--http-backend-info-refs"]),
            Framing::Stateless => command.arg("--stateless-rpc"),
        };
        if exchange.version > 0 {
            command.env("GIT_PROTOCOL", format!("version={}", exchange.version));
        }
        command.arg(match exchange.service {
            // The nonces of signed pushes are made of it, and say for which repository. It is
            // absolute, and so no option. Another repository that has its name by now is
            // refused by the gate, as it is when git has been started there.
            Service::ReceivePack => exchange.repository.as_os_str(),
            // The folder itself, and nothing that a name could be taken for.
            Service::UploadPack | Service::UploadArchive => OsStr::new("."),
        });
        Ok(command)
    }

    /// Has a push ask at `socket`. Whatever the repository's own configuration says, git runs
    /// these hooks and no other program, and checks what it gets. It is told by arguments before
    /// the sub-command, which every git knows; there is no secret in them.
    fn guard(
        &self,
        command: &mut Command,
        exchange: &Exchange,
        socket: &Path,
    ) -> Result<(), EngineError> {
        let hooks = &self.configuration.as_ref().ok_or(EngineError::NoHooks)?.hooks;
        let pack = exchange.bounds.pack.to_string();
        let settings: [(&str, &OsStr); 6] = [
            ("core.hooksPath", hooks.as_os_str()),
            ("receive.procReceiveRefs", "refs".as_ref()),
            ("receive.fsckObjects", "true".as_ref()),
            ("receive.unpackLimit", "1".as_ref()),
            ("receive.maxInputSize", pack.as_ref()),
            // While objects wait for the decision the repository is an alternate, whose refs
            // are known already.
            ("core.alternateRefsCommand", "true".as_ref()),
        ];
        for (key, value) in settings {
            let mut setting = OsString::from(key);
            setting.push("=");
            setting.push(value);
            command.arg("-c").arg(setting);
        }
        command.env(hook::SOCKET, socket);
        Ok(())
    }

    /// A push whose hooks ask at a socket of its own.
    async fn push(self, exchange: Exchange, file: u64, seen: &Seen) -> Result<(), EngineError> {
        let gate = exchange.gate.clone().ok_or(EngineError::NoHooks)?;
        let socket = PrivateSocket::own().map_err(EngineError::Run)?;
        let command = self.service(&exchange, Some(&socket.path()))?;
        let course = Arc::<hook::Course>::default();
        let complaint = Arc::<Complaint>::default();
        let most = exchange.bounds.pack;
        let hooks = Hooks {
            socket,
            gate: gate.clone(),
            course: course.clone(),
            complaint: complaint.clone(),
            remark: format!("no more than {most} bytes are taken: see the repository's quota\n"),
        };
        let ended = run::run(command, exchange, file, Some(hooks)).await;
        let ended = ended.map_err(|error| seen.fault().unwrap_or(error));
        let (wanted, fault) = (seen.wanted(), seen.fault().is_some());
        if !course.asked.load(Ordering::Relaxed) && (fault || !wanted.is_empty()) {
            let why = match &ended {
                Ok(said) => complaint.errors(said),
                Err(error) => complaint.errors("").or_else(|| Some(error.to_string())),
            };
            gate.unasked(wanted, why);
        }
        ended.map(drop)
    }
}

impl Engine for InstalledGit {
    fn serve(&self, exchange: Exchange) -> BoxFuture<'static, Result<(), EngineError>> {
        let git = self.clone();
        Box::pin(async move {
            let Exchange { service, framing, .. } = exchange;
            let signed = git.configuration.as_ref().is_some_and(|it| it.signed);
            let file = exchange.bounds.pack.saturating_add(BESIDE);
            let (input, seen) =
                Intake::new(exchange.input, service, exchange.bounds.request, signed);
            let input = input.asking(exchange.gate.clone());
            let exchange = Exchange { input: Box::new(input), ..exchange };
            if service == Service::ReceivePack && framing != Framing::Advertisement {
                return git.push(exchange, file, &seen).await;
            }
            let ended = run::run(git.service(&exchange, None)?, exchange, file, None).await;
            ended.map(drop).map_err(|error| seen.fault().unwrap_or(error))
        })
    }
}
