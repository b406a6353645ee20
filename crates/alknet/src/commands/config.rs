//! `alknet config reference|check`.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use crate::{
    config::{self, Config, ConfigError, Problem},
    failure::Failure,
    home::Home,
    output,
};

/// Explain and check the configuration
///
/// A node reads `alknet.toml` in its state folder; every key of it is optional.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet config reference > alknet.toml\n  alknet config check")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Reference(Reference),
    Check(Check),
}

/// Print every key with its meaning and its default
///
/// It is an `alknet.toml` in which every key is a comment.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet config reference")]
struct Reference {
    /// Print a JSON Schema, for editors and other programs
    #[arg(long)]
    json: bool,
}

/// Say everything that is wrong with a configuration
///
/// The files that it names are tried as well: certificates, their key, and so on. The exit
/// code is 1 if anything is wrong.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet config check\n  alknet config check ./alknet.toml --json"
)]
struct Check {
    /// The file [default: alknet.toml in the state folder]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    match args.action {
        Action::Reference(args) => reference(&args),
        Action::Check(args) => check(args, home).await,
    }
}

fn reference(args: &Reference) -> Result<(), Failure> {
    if args.json {
        output::json(&config::schema())?;
    } else {
        output::line(config::reference().trim_end())?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    valid: bool,
    problems: &'a [Problem],
}

async fn check(args: Check, home: &Home) -> Result<(), Failure> {
    let (file, checked) = match args.file {
        Some(file) => {
            let checked = Config::check_file(&file).await;
            (file, checked)
        }
        None => (home.path(config::FILE), Config::load_checked(home).await),
    };
    let file = file.display().to_string();
    if args.json {
        let problems = match &checked {
            Ok(_) => &[][..],
            Err(ConfigError::Invalid { problems, .. }) => problems,
            Err(_) => return Ok(checked.map(drop)?),
        };
        output::json(&Report { file, valid: checked.is_ok(), problems })?;
    } else if checked.is_ok() {
        output::line(format_args!("{file} is valid"))?;
    }
    Ok(checked.map(drop)?)
}
